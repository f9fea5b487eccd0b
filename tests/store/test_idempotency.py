"""Idempotency keys claimed by several requests at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import sqlalchemy as sa

from service.store import idempotency as rows
from service.store.database import Database
from service.store.schema import idempotency
from service.types import now_ms
from tests.tables import create_tables

AT_ONCE, ROUNDS = 8, 40


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with closing(Database(url.replace("postgresql://", "postgresql+psycopg://"))) as database:
        create_tables(database.engine)
        yield database


def test_a_key_that_has_expired_is_taken_by_one(db: Database) -> None:
    """Each of them finds the old row first; who then deletes it must not delete the new owner's."""
    together = threading.Barrier(AT_ONCE, timeout=30)

    def claim(key: str, number: int) -> bool:
        together.wait()
        later = now_ms() + 60_000
        return db.transact(lambda tx: rows.claim(tx, "usr_1", key, str(number), None, later)) is None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for turn in range(ROUNDS):
            old = {"user_id": "usr_1", "key": f"k{turn}", "fingerprint": "old"}
            times = {"created_at": 0, "expires_at": 1}
            db.transact(lambda tx: tx.execute(sa.insert(idempotency), {**old, **times}))  # noqa: B023
            taken = list(pool.map(claim, [f"k{turn}"] * AT_ONCE, range(AT_ONCE)))
            assert taken.count(True) == 1
            row = db.query(lambda tx: rows.find(tx, "usr_1", f"k{turn}"))  # noqa: B023
            assert row is not None and row["fingerprint"] == str(taken.index(True))
