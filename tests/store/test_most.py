"""Limits on the keys and sessions of one user."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import TooMany
from service.ids import new_id
from service.store import keys, session_expiry, sessions, users
from service.store.database import Database
from service.store.schema import api_keys
from service.types import now_ms
from tests.tables import create_tables


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    """With the users `usr_ada` and `usr_bob`."""
    with closing(Database(url.replace("postgresql://", "postgresql+psycopg://"))) as database:
        create_tables(database.engine)
        for name in ("ada", "bob"):
            row = {"id": f"usr_{name}", "username": name, "password_hash": "", "role": "user"}
            row |= {"disabled": False, "created_at": 1}
            database.transact(lambda tx: users.insert(tx, row))  # noqa: B023
        yield database


def key(user: str = "ada", **more: Any) -> dict[str, Any]:
    name = new_id("key")
    about = {
        "id": name,
        "user_id": f"usr_{user}",
        "name": "k",
        "digest": name,
        "prefix": "slp_",
        "scopes": [],
    }
    return {**about, "created_at": 1, "expires_at": None, **more}


def session(user: str = "ada") -> dict[str, Any]:
    about = {"id": new_id("ses"), "user_id": f"usr_{user}", "agent": "a", "title": "", "metadata": None}
    return {**about, "summary_upto": 0, "created_at": 1, "updated_at": 1, "expires_at": now_ms() + 60_000}


def made(db: Database, row: dict[str, Any]) -> bool:
    try:
        db.transact(lambda tx: keys.insert(tx, row))
    except TooMany:
        return False
    return True


def test_keys_are_counted_at_once_too(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "MAX_KEYS", 5)
    expired = [key(expires_at=now_ms() - 1) for _ in range(3)]
    assert all(made(db, row) for row in expired), "they are over"
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(lambda _: made(db, key()), range(12))).count(True) == 5
    assert not made(db, key()) and made(db, key("bob"))
    with db.read() as tx:
        valid = sa.select(api_keys).where(api_keys.c.user_id == "usr_ada", api_keys.c.expires_at.is_(None))
        kept = tx.rows(valid)[0]
    assert made(db, {**kept}), "the same transaction, run again"
    assert db.transact(lambda tx: keys.revoke(tx, kept["id"], "usr_ada")) == [kept["digest"]]
    assert made(db, key()), "revoking one makes room"


def test_sessions_have_a_most(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS", 3)
    rows = [session() for _ in range(3)]
    for row in (*rows, rows[-1], session("bob")):
        db.transact(lambda tx: sessions.insert(tx, row))  # noqa: B023
    with pytest.raises(TooMany) as refused:
        db.transact(lambda tx: sessions.insert(tx, session()))
    assert (refused.value.status, refused.value.code) == (409, "too_many")
    assert db.transact(lambda tx: session_expiry.clear(tx, [rows[0]["id"]], 10)) == 1
    db.transact(lambda tx: sessions.insert(tx, session()))
