"""A statement given to the driver as text does what SQLAlchemy would have done with it, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.store.database import Database, InsertOnce
from service.store.schema import runs, users
from service.store.statement import Statement, binds, listed
from service.types import RunStatus
from tests.tables import create_tables

ADA = {"id": "usr_1", "username": "ada", "password_hash": "x", "role": "user", "created_at": 1}
RUN: dict[str, Any] = {
    "id": "run_1",
    "user_id": "usr_1",
    "agent": "assistant",
    "agent_version": "v",
    "door": "invoke",
    "request_id": "100 %s",
    "request": {"text": "Wörter 🙂", "n": [1, 2.5, None]},
    "status": RunStatus.RUNNING,
    "cache": "miss",
    "created_at": 2**40,
}


@pytest.fixture
def db(url: str) -> Database:
    found = Database(url.replace("postgresql://", "postgresql+psycopg://"), pool_size=4)
    create_tables(found.engine)
    return found


def test_inserted_values_are_read_back(db: Database) -> None:
    """Types, columns that have a default, and those that are not given."""
    everything = sa.select(users.c.disabled, runs).join(runs, runs.c.user_id == users.c.id)
    with db.begin() as tx:
        assert tx.execute(Statement(sa.insert(users)), ADA) == 1
        assert tx.execute(Statement(sa.insert(runs)), tx.sealed(runs, RUN, ADA["id"])) == 1
        quick, slow = tx.row(Statement(everything)), tx.row(everything)
    assert quick == slow
    assert quick is not None and quick["request"] == RUN["request"] and quick["request_id"] == "100 %s"
    assert (quick["disabled"], quick["cancel_requested"], quick["losses"]) == (False, False, 0)
    assert (quick["result"], quick["finished_at"], quick["created_at"]) == (None, None, 2**40)
    db.close()


def test_bulk_insert_once_and_returning(db: Database) -> None:
    insert, named = Statement(InsertOnce(users)), sa.select(users.c.id)
    people = [{**ADA, "id": f"usr_{name}", "username": name} for name in "abc"]
    with db.begin() as tx:
        tx.send(insert, *people)
        assert tx.execute(insert, people[0]) == 0  # it is there
        found = tx.rows(
            Statement(named.where(users.c.id.in_(binds("id", 2))).order_by(users.c.id)),
            listed("id", ["usr_a", "usr_c"]),
        )
        assert [row["id"] for row in found] == ["usr_a", "usr_c"]
        gone = tx.rows(
            Statement(sa.delete(users).where(users.c.id == sa.bindparam("of")).returning(users)),
            {"of": "usr_b"},
        )
    assert [row["username"] for row in gone] == ["b"]
    db.close()


def test_failed_statement_leaves_no_row(db: Database) -> None:
    insert = Statement(sa.insert(users))
    with pytest.raises(db.engine.dialect.loaded_dbapi.IntegrityError), db.begin() as tx:  # type: ignore[attr-defined]
        tx.execute(insert, ADA)
        tx.execute(insert, ADA)
    with db.read() as tx:
        assert tx.rows(Statement(sa.select(users.c.id))) == []
    db.close()
