"""Search for sessions by title, over either database."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import Forbidden
from service.sessions import Sessions
from service.store import sessions as rows
from service.store.database import Database
from tests.session_turns import ADA, BOB, OPERATOR, db, sessions
from tests.usage.conftest import postgres_url, url

__all__ = ["db", "postgres_url", "sessions", "url"]


def search(
    sessions: Sessions, text: str, limit: int = 9, before: str | None = None, **more: Any
) -> list[str]:
    caller = more.pop("caller", ADA)
    found, _ = sessions.page(caller, text, all_users=more.pop("all_users", False), limit=limit, before=before)
    return [row["title"] for row in found]


def test_titles_are_searched_in_any_case_and_script(sessions: Sessions, db: Database) -> None:
    for title in ("Straße 100% ÄRGER", "ärger_im Büro", "Other", "ÅNGSTRÖM"):
        row = sessions.new(ADA, "assistant", title, None)
        db.transact(lambda tx, row=row: sessions.create(tx, row))  # type: ignore[misc]
    assert search(sessions, "ärger") == ["ärger_im Büro", "Straße 100% ÄRGER"]
    assert search(sessions, "STRASSE") == search(sessions, "0%") == ["Straße 100% ÄRGER"]
    assert search(sessions, "_") == search(sessions, "r_i") == ["ärger_im Büro"]
    assert search(sessions, "a\u030angstro\u0308m") == ["ÅNGSTRÖM"]
    assert search(sessions, "%%") == search(sessions, "ärger", caller=BOB) == []
    assert search(sessions, "ärger", limit=1) == ["ärger_im Büro"]
    assert search(sessions, "other", caller=OPERATOR, all_users=True) == ["Other"]
    with pytest.raises(Forbidden):
        search(sessions, "x", all_users=True)


def test_a_search_stops_somewhere_and_goes_on_there(
    sessions: Sessions, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    for title in ("wanted", "b", "c", "d", "e"):
        row = sessions.new(ADA, "assistant", title, None)
        db.transact(lambda tx, row=row: sessions.create(tx, row))  # type: ignore[misc]
        ids.append(row["id"])
    monkeypatch.setattr(rows, "SEARCH_PAGE", 2)
    monkeypatch.setattr(rows, "MAX_SESSIONS", 4)
    assert sessions.page(ADA, "wanted", all_users=False, limit=3, before=None) == ([], ids[1])
    found, broke_off = sessions.page(ADA, "wanted", all_users=False, limit=3, before=ids[1])
    assert ([row["id"] for row in found], broke_off) == (ids[:1], None)
