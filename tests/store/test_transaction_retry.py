"""Transactions that collide on a real PostgreSQL are retried without an error to the client."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from service.errors import DatabaseUnavailable
from service.store import transaction_retry
from service.store.actor import Actor, acting_as
from service.store.database import Database, Transaction

pytestmark = pytest.mark.parametrize("url", ["postgresql"], indirect=True)
pots = sa.Table(
    "pots", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.Integer)
)


@pytest.fixture
def retries() -> list[str]:
    """Why transactions were run again."""
    return []


@pytest.fixture
def db(url: str, caplog: pytest.LogCaptureFixture, retries: list[str]) -> Iterator[Database]:
    """Two pots with nothing in them."""
    caplog.set_level("INFO", "slipway.database")
    database = Database(url, retried=retries.append)
    pots.create(database.engine)
    database.transact(lambda tx: tx.execute(sa.insert(pots), [{"id": 1, "n": 0}, {"id": 2, "n": 0}]))
    yield database
    database.close()


def put_in(tx: Transaction, pot: int) -> None:
    tx.execute(sa.update(pots).where(pots.c.id == pot).values(n=pots.c.n + 1))


def contents(db: Database) -> list[int]:
    return [row["n"] for row in db.query(lambda tx: tx.rows(sa.select(pots.c.n).order_by(pots.c.id)))]


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.getMessage(), getattr(record, "cause", "")) for record in caplog.records]


def test_a_deadlock(db: Database, caplog: pytest.LogCaptureFixture, retries: list[str]) -> None:
    both_have_one = threading.Barrier(2)

    def fill(first: int, second: int) -> int:
        turns: list[int] = []

        def work(tx: Transaction) -> None:
            tx.execute(sa.text("SET LOCAL deadlock_timeout = '20ms'"))
            put_in(tx, first)
            turns.append(first)
            if len(turns) == 1:
                both_have_one.wait(60)
            put_in(tx, second)

        db.transact(work, patience=0)
        return len(turns)

    with ThreadPoolExecutor(2) as pool:
        turns = list(pool.map(fill, (1, 2), (2, 1)))
    assert sorted(turns) == [1, 2] and contents(db) == [2, 2]
    assert logged(caplog) == [("transaction_retried", "deadlock")]
    assert retries == ["deadlock"]


def test_a_serialization_failure(db: Database, caplog: pytest.LogCaptureFixture) -> None:
    turns: list[int] = []

    def work(tx: Transaction) -> None:
        tx.use_one_snapshot()
        turns.append(len(tx.rows(sa.select(pots))))
        if len(turns) == 1:
            db.transact(lambda other: put_in(other, 1))
        put_in(tx, 1)

    with acting_as(Actor("user", "usr_ada", "key_1")):
        db.transact(work, patience=0)
    assert len(turns) == 2 and contents(db) == [2, 0]
    assert logged(caplog) == [("transaction_retried", "serialization_failure")]
    assert caplog.records[0].__dict__["actor"] == "usr_ada/key_1"


def test_one_that_always_collides_is_given_up(
    db: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transaction_retry, "MAX_PAUSE", 0.0)
    turns: list[int] = []

    def work(tx: Transaction) -> None:
        turns.append(1)
        tx.execute(sa.text("DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"))

    with pytest.raises(DatabaseUnavailable):
        db.transact(work, patience=0)
    assert len(turns) == transaction_retry.MAX_RETRIES + 1 == len(caplog.records) + 1
