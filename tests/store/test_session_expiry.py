"""Sessions that are over go bit by bit, however many of them there are and however much one of them holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from service.errors import NotFound
from service.ids import new_id
from service.jobs.upkeep import delete_expired
from service.sessions import DELETE_BATCH, Sessions
from service.store import session_expiry
from service.store.database import Database, Transaction
from service.store.schema import messages, runs, sessions, users
from service.types import Caller, now_ms
from tests.store.spied import watch
from tests.tables import create_tables

FEW, MANY = 300, 3_000
ADA = Caller("usr_ada", "ada", "user")
Held = dict[str, int]


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    database = Database(url)
    yield database
    database.close()


@pytest.fixture
def service(db: Database) -> Sessions:
    create_tables(db.engine)
    ada = {"id": ADA.user_id, "username": "ada", "password_hash": "", "role": "user", "created_at": 0}
    db.transact(lambda tx: tx.execute(users.insert(), ada))
    return Sessions(db, ttl_days=30, history_tokens=1_000)


def fill(db: Database, ids: list[str], turns: int, expires_at: int) -> None:
    """Sessions, each with so many runs that have ended and their messages."""
    ended = {"user_id": ADA.user_id, "agent": "a", "agent_version": "1", "door": "invoke", "request_id": "r"}
    ended |= {"request": {}, "status": "succeeded", "cache": "miss", "created_at": 1, "finished_at": 1}
    said = {"run_id": "r", "role": "user", "content": "", "tokens": 1, "created_at": 1}
    about = {"user_id": ADA.user_id, "agent": "a", "created_at": 1, "updated_at": 1, "expires_at": expires_at}

    def work(tx: Transaction) -> None:
        tx.execute(sessions.insert(), [{**about, "id": each} for each in ids])
        of_run = tx.sealed(runs, ended, ADA.user_id)
        turn = [(each, number) for each in ids for number in range(turns)]
        tx.execute(runs.insert(), [{**of_run, "id": new_id("run"), "session_id": each} for each, _ in turn])
        tx.execute(messages.insert(), [{**said, "session_id": each, "seq": n + 1} for each, n in turn])

    db.transact(work)


def cost_of_a_turn(url: str) -> int:
    """Steps of SQLite, or pages of PostgreSQL, for one batch of everything that upkeep does."""
    database = Database(url)
    spy = watch(database.engine)
    try:
        return spy.cost(lambda: delete_expired(database, 90, seconds=0))
    finally:
        database.close()


def held(db: Database) -> Held:
    def count(tx: Transaction) -> Held:
        tables = (sessions, runs, messages)
        return {table.name: len(tx.rows(sa.select(table.primary_key.columns[0]))) for table in tables}

    return db.query(count)


def test_a_turn_of_upkeep_costs_no_more_where_many_are_over(
    service: Sessions, db: Database, url: str
) -> None:
    """Else it holds the only writer of SQLite for as long as it looks at all of them."""
    fill(db, [new_id("ses") for _ in range(FEW)], 1, 1)
    few = cost_of_a_turn(url)
    fill(db, [new_id("ses") for _ in range(MANY)], 1, 2)
    if not db.sqlite:  # as autovacuum does
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))
    many = cost_of_a_turn(url)
    assert many < 2 * few


def test_all_of_them_go_and_nothing_else(service: Sessions, db: Database) -> None:
    fill(db, [new_id("ses") for _ in range(DELETE_BATCH + 20)], 2, 1)
    fill(db, ["ses_new"], 2, now_ms() + 60_000)
    gone = delete_expired(db, 90)["sessions"]
    assert (gone, held(db)) == ((DELETE_BATCH + 20) * 5, {"sessions": 1, "runs": 2, "messages": 2})


def test_a_long_session_is_gone_at_once_and_then_bit_by_bit(service: Sessions, db: Database) -> None:
    fill(db, ["ses_long"], DELETE_BATCH + 20, now_ms() + 60_000)
    assert db.transact(lambda tx: session_expiry.close(tx, "ses_long"))
    assert db.transact(lambda tx: session_expiry.clear(tx, ["ses_long"], DELETE_BATCH)) == DELETE_BATCH
    assert held(db) == {"sessions": 1, "runs": 20, "messages": DELETE_BATCH + 20}
    with pytest.raises(NotFound):
        service.get(ADA, "ses_long")
    assert service.page(ADA, None, all_users=False, limit=5, before=None) == ([], None)
    delete_expired(db, 90)  # whoever deleted it has died meanwhile
    assert held(db) == {"sessions": 0, "runs": 0, "messages": 0}


def test_a_long_session_is_deleted_as_its_user_asks(service: Sessions, db: Database) -> None:
    fill(db, ["ses_long"], 2 * DELETE_BATCH, now_ms() + 60_000)
    assert service.delete("ses_long")
    assert held(db) == {"sessions": 0, "runs": 0, "messages": 0}
