"""Lists of runs that went wrong, of a user with many of them, and of a long session: a page costs what it shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import run_lists, users
from service.store.database import Database
from service.store.run_lists import RunFilter
from service.store.visibility import Visibility
from tests.store.filled import fill
from tests.store.spied import Spy, watch
from tests.tables import create_tables

HEAVY = "usr_heavy"  # whose 2,500 runs failed but for those of the agent `rare`
LONG = "ses_long"  # with the 1,700 runs of `heavy` and the agent `assistant`
MAX_COST = 60  # pages, or hundreds of SQLite's steps, for a page of three runs


@pytest.fixture
def watched(url: str) -> Iterator[tuple[Database, Spy]]:
    with closing(Database(url)) as db:
        spy = watch(db.engine)
        create_tables(db.engine)
        heavy = {"id": HEAVY, "username": "heavy", "password_hash": "", "role": "user", "disabled": False}
        db.transact(lambda tx: users.insert(tx, {**heavy, "created_at": 1}))
        fill(db.engine, 5_000, heavy=HEAVY)
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            failed = "UPDATE runs SET status = CASE WHEN agent = 'rare' THEN 'cancelled' ELSE 'failed' END"
            connection.execute(sa.text(f"{failed} WHERE finished_at IS NOT NULL"))
            joined = "UPDATE runs SET session_id = :session WHERE user_id = :user AND agent = 'assistant'"
            connection.execute(sa.text(joined), {"session": LONG, "user": HEAVY})
            if not db.sqlite:
                connection.execute(sa.text("VACUUM ANALYZE runs"))
        yield db, spy


SCOPES = ("agents:rar*",)
ASKED: list[tuple[RunFilter, Visibility, int]] = [
    (RunFilter("cancelled", "rare"), Visibility(HEAVY), 3),
    (RunFilter("failed", "rare"), Visibility(HEAVY), 0),
    (RunFilter("cancelled", "rare"), Visibility(HEAVY, SCOPES), 3),
    (RunFilter("failed"), Visibility(HEAVY, SCOPES), 0),
    (RunFilter("failed"), Visibility(None, SCOPES), 0),
    (RunFilter("failed", "support"), Visibility("usr_none"), 0),
    (RunFilter(session_id=LONG), Visibility(HEAVY), 20),
    (RunFilter(session_id=LONG), Visibility("usr_none"), 0),
    (RunFilter(session_id=LONG), Visibility(HEAVY, SCOPES), 0),
    (RunFilter(None, "assistant", LONG), Visibility(HEAVY), 20),
    (RunFilter(None, "rare", LONG), Visibility(), 0),
    (RunFilter("failed", "assistant", LONG), Visibility(HEAVY), 20),
    (RunFilter("cancelled", session_id=LONG), Visibility(), 0),
]


def test_a_page_is_found_without_reading_other_runs(
    watched: tuple[Database, Spy],
) -> None:
    db, spy = watched
    for wanted, visible, expected in ASKED:
        found: list[Any] = []

        def read(wanted: RunFilter = wanted, visible: Visibility = visible, found: list[Any] = found) -> None:
            found += db.query(lambda tx: run_lists.recent(tx, wanted, limit=20, before=None, visible=visible))

        assert spy.cost(read) < MAX_COST, (wanted, visible, spy.told())
        assert len(found) == expected, (wanted, visible)
