"""SQLite files that cannot be written to, read or opened."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import DatabaseUnavailable
from service.store.database import Database
from tests.store.conftest import Log


def test_a_file_that_cannot_be_written_to_is_opened_anew(tmp_path: Path, causes: Log) -> None:
    """SQLite opens for reading alone what it may not write to, and never looks again."""
    with closing(Database(f"sqlite:///{tmp_path}/x.db")) as db:
        db.transact(lambda tx: tx.execute(sa.text("CREATE TABLE notes (id INTEGER)")))
        with db.read() as tx:
            tx.execute(sa.text("PRAGMA query_only = ON"))
        db.transact(lambda tx: tx.execute(sa.text("INSERT INTO notes VALUES (1)")))
    assert causes("database_away") == ["the file of the database is read-only"]
    assert len(causes("database_back")) == 1


def test_reading_does_not_end_an_outage_of_writing(tmp_path: Path, causes: Log) -> None:
    with closing(Database(f"sqlite:///{tmp_path}/x.db", patience=0.1)) as db:
        db.transact(lambda tx: tx.execute(sa.text("CREATE TABLE notes (text TEXT)")))
        sa.event.listen(db.engine, "begin", lambda c: c.exec_driver_sql("PRAGMA max_page_count = 1"))
        with pytest.raises(DatabaseUnavailable):
            db.transact(lambda tx: tx.execute(sa.text("INSERT INTO notes VALUES (zeroblob(100000))")))
        db.query(lambda tx: tx.row(sa.text("SELECT 1")))
        with pytest.raises(DatabaseUnavailable):
            db.ping()
        db.transact(lambda tx: tx.execute(sa.text("INSERT INTO notes VALUES ('small')")))
        db.ping()
    assert causes("database_away") == ["the disk is full"] and len(causes("database_back")) == 1


def test_a_file_that_is_no_database_is_an_outage(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"no database" * 1000)
    with closing(Database(f"sqlite:///{tmp_path}/x.db")) as db, pytest.raises(DatabaseUnavailable):
        db.query(lambda tx: tx.row(sa.text("SELECT count(*) FROM sqlite_master")), patience=0)
