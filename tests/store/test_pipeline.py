"""Pipelined transactions on PostgreSQL: the usual result costs one round trip, the server finds another one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import psycopg
import pytest
import sqlalchemy as sa

from service.errors import DatabaseUnavailable
from service.store import postgres_connection, transaction
from service.store.database import Database, InsertOnce, Row, Transaction
from service.store.postgres_connection import Connection
from service.store.statement import Statement

pytestmark = pytest.mark.parametrize("url", ["postgresql"], indirect=True)
pots = sa.Table(
    "pots", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("n", sa.BigInteger)
)
ADD = Statement(InsertOnce(pots))
FILL = Statement(sa.update(pots).where(pots.c.id == sa.bindparam("pot")).values(n=pots.c.n + 1))
EMPTY = Statement(sa.delete(pots).where(pots.c.id == sa.bindparam("pot")).returning(pots))
READ = Statement(sa.select(pots).order_by(pots.c.id))


@pytest.fixture
def retries() -> list[str]:
    return []


@pytest.fixture
def db(url: str, retries: list[str]) -> Iterator[Database]:
    """One pot, with nothing in it."""
    database = Database(url, retried=retries.append)
    pots.create(database.engine)
    database.transact(lambda tx: tx.send(ADD, {"id": 1, "n": 0}))
    yield database
    database.close()


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Statements of each round trip, by their first word."""
    sent: list[list[str]] = []
    send = transaction.send

    def counted(connection: Connection, queue: list[transaction.Queued]) -> object:
        sent.append([each.sql.split()[0] for each in queue])
        return send(connection, queue)

    monkeypatch.setattr(transaction, "send", counted)
    return sent


def contents(db: Database) -> list[tuple[int, int]]:
    return [(row["id"], row["n"]) for row in db.query(lambda tx: tx.rows(READ))]


def test_usual_transaction_is_one_trip(db: Database, trips: list[list[str]]) -> None:
    def work(tx: Transaction) -> int:
        tx.send(ADD, {"id": 2, "n": 5}, {"id": 3, "n": 7})
        return tx.execute(FILL, {"pot": 1}, expect=1)

    assert db.transact(work) == 1
    assert trips == [["BEGIN", "INSERT", "INSERT", "WITH", "COMMIT"]]
    assert contents(db) == [(1, 1), (2, 5), (3, 7)]


def test_other_row_count_runs_the_transaction_again(db: Database, retries: list[str]) -> None:
    found: list[int] = []

    def work(tx: Transaction) -> int:
        tx.send(ADD, {"id": 2, "n": 5})
        found.append(tx.execute(FILL, {"pot": 9}, expect=1))
        return found[-1]

    assert db.transact(work) == 0
    assert found == [1, 0]  # assumed, then read
    assert contents(db) == [(1, 0), (2, 5)]
    assert retries == ["unexpected_result"]


@pytest.mark.parametrize("stored", [0, 4])
def test_other_rows_run_the_transaction_again(db: Database, stored: int, retries: list[str]) -> None:
    db.transact(lambda tx: tx.execute(sa.update(pots).values(n=stored)))

    def work(tx: Transaction) -> Row | None:
        return tx.row(EMPTY, {"pot": 1}, expect={"id": 1, "n": 0})

    assert db.transact(work) == {"id": 1, "n": stored}
    assert contents(db) == []
    assert retries == ([] if stored == 0 else ["unexpected_result"])


def test_error_after_an_assumption_counts_only_if_that_holds(db: Database) -> None:
    """The error's own cause may be the wrong assumption."""
    calls: list[int] = []

    def work(tx: Transaction) -> None:
        calls.append(tx.execute(FILL, {"pot": 9}, expect=1))
        if calls[-1]:
            raise LookupError

    db.transact(work)
    assert calls == [1, 0]

    def fails(tx: Transaction) -> None:
        tx.execute(FILL, {"pot": 1}, expect=1)
        raise LookupError

    with pytest.raises(LookupError):
        db.transact(fails)
    assert contents(db) == [(1, 0)]


def test_result_that_is_needed_takes_the_waiting_statements_along(
    db: Database, trips: list[list[str]]
) -> None:
    def work(tx: Transaction) -> list[Row]:
        tx.send(ADD, {"id": 2, "n": 5})
        return tx.rows(READ)

    assert [row["id"] for row in db.transact(work)] == [1, 2]
    assert trips == [["BEGIN", "INSERT", "SELECT"], ["COMMIT"]]


def test_rows_after_commit_come_after_the_commit(db: Database) -> None:
    seen: list[tuple[list[Row], list[tuple[int, int]]]] = []

    def work(tx: Transaction) -> None:
        tx.rows_after_commit(EMPTY, {"pot": 1}, lambda rows: seen.append((rows, contents(db))))
        assert tx.rows(READ) == []  # this trip has taken the statement along

    db.transact(work)
    assert seen == [([{"id": 1, "n": 0}], [])]


def test_failed_statement_undoes_all(db: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.send(ADD, {"id": 2, "n": 5})
        tx.send(Statement(sa.insert(pots)), {"id": 1, "n": 5})

    with pytest.raises(Exception, match="duplicate key"):
        db.transact(work)
    assert contents(db) == [(1, 0)]


def test_statement_is_prepared_once(db: Database) -> None:
    for number in (2, 3, 4):
        db.transact(lambda tx, number=number: tx.send(ADD, {"id": number, "n": number}))
    names = sa.text("SELECT statement FROM pg_prepared_statements WHERE statement LIKE 'INSERT INTO pots%'")
    assert len(db.query(lambda tx: tx.rows(names))) == 1


def test_statement_after_a_failed_one_is_not_taken_for_prepared(db: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.send(Statement(sa.insert(pots)), {"id": 1, "n": 5})
        tx.send(FILL, {"pot": 1})

    with pytest.raises(Exception, match="duplicate key"):
        db.transact(work)
    db.transact(lambda tx: tx.send(FILL, {"pot": 1}), patience=0)
    assert contents(db) == [(1, 1)]


@pytest.mark.parametrize("most", [0, 2])
def test_statements_beyond_the_most_that_are_prepared(
    db: Database, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_connection, "MAX_PREPARED", most)
    with closing(Database(str(db.engine.url.render_as_string(hide_password=False)))) as few:
        for number in (2, 3):
            few.transact(lambda tx, number=number: tx.send(ADD, {"id": number, "n": number}))
            assert contents(few)[-1] == (number, number)


def test_read_is_one_trip_for_each_statement(db: Database, trips: list[list[str]]) -> None:
    assert len(db.query(lambda tx: tx.rows(READ) + tx.rows(READ))) == 2
    assert trips == [["SELECT"], ["SELECT"]]


@pytest.mark.parametrize("change", ["ALTER TABLE pots ALTER n TYPE numeric", "DEALLOCATE ALL"])
def test_read_goes_on_where_what_was_prepared_does_not_fit(db: Database, change: str) -> None:
    """A statement outside of a transaction: no rollback makes its connection forget.

    The change is hidden from the driver, which would see it on its own connection.
    """
    contents(db)
    db.transact(lambda tx: tx.execute(sa.text(f"DO $$ BEGIN EXECUTE '{change}'; END $$")))
    assert contents(db) == contents(db) == [(1, 0)]


def test_one_snapshot_sees_no_later_commit(db: Database) -> None:
    def work(tx: Transaction) -> list[int]:
        tx.use_one_snapshot()
        first = len(tx.rows(READ))
        db.transact(lambda other: other.send(ADD, {"id": 2, "n": 5}))
        return [first, len(tx.rows(READ))]

    assert db.query(work) == [1, 1]
    assert len(contents(db)) == 2


def test_write_transaction_sees_later_commits_whatever_the_default_of_the_database(
    db: Database, url: str
) -> None:
    """As a hold must see the cap for whose setter it has waited."""
    name = sa.make_url(url).database
    default = f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"
    db.transact(lambda tx: tx.execute(sa.text(default)))

    def work(tx: Transaction) -> list[int]:
        first = len(tx.rows(READ))
        db.transact(lambda other: other.send(ADD, {"id": 2, "n": 5}))
        return [first, len(tx.rows(READ))]

    with closing(Database(url)) as changed:
        assert changed.transact(work) == [1, 2]


def test_lost_connection_in_a_pipeline_is_an_outage(db: Database) -> None:
    def work(tx: Transaction) -> None:
        tx.send(Statement(sa.select(sa.func.pg_terminate_backend(sa.func.pg_backend_pid()))), {})
        tx.execute(FILL, {"pot": 1}, expect=1)

    with pytest.raises(DatabaseUnavailable):
        db.transact(work, patience=0)
    assert contents(db) == [(1, 0)]


def test_failed_transaction_keeps_what_it_prepared(db: Database) -> None:
    """The server keeps a prepared statement through a rollback: to forget it would be to prepare it anew each time."""
    root = Statement(sa.select(sa.func.sqrt(sa.bindparam("of", type_=sa.Float))))

    def work(tx: Transaction) -> None:
        tx.send(READ, {})
        tx.rows(root, {"of": -1.0})

    for _ in range(5):
        with pytest.raises(psycopg.DataError):
            db.transact(work)
    counted = "SELECT count(*) AS n, count(DISTINCT statement) AS different FROM pg_prepared_statements"
    for _ in range(2):
        row = db.query(lambda tx: tx.row(sa.text(counted)))
        assert row is not None and row["n"] == row["different"] > 2
