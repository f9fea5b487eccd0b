"""A disk without room, as SQLite meets it: a real file that may not grow."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import DatabaseUnavailable
from service.store import users
from service.store.database import Database, Transaction
from service.store.schema import users as table
from tests.tables import create_tables


def test_full_disk_is_an_error_without_partial_writes(tmp_path: Path) -> None:
    db = Database(f"sqlite:///{tmp_path}/test.db", patience=0.1)
    create_tables(db.engine)

    def fill(tx: Transaction, first: int, count: int) -> None:
        for number in range(first, first + count):
            row = {
                "id": f"usr_{number}",
                "username": f"u{number}",
                "password_hash": "x" * 2000,
                "role": "user",
            }
            users.insert(tx, {**row, "disabled": False, "created_at": 0})

    db.transact(lambda tx: fill(tx, 0, 1))
    sa.event.listen(db.engine, "begin", lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1"))  # no growth
    with pytest.raises(DatabaseUnavailable):
        db.transact(lambda tx: fill(tx, 1, 200), patience=0)
    assert [row["id"] for row in db.query(lambda tx: tx.rows(sa.select(table.c.id)))] == ["usr_0"]
    db.close()
