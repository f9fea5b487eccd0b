"""SQLAlchemy engine of SQLite or PostgreSQL: pool options, JSON codec, set-up and age of its connections."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

import orjson
import sqlalchemy as sa

from service.store import postgres

CREATED_AT = "created_at"  # key in the `info` of a pooled connection: time.monotonic() when it was made


def create(url: str, pool_size: int, busy_seconds: float, pragmas: Sequence[str] = ()) -> sa.Engine:
    """Create the engine, with at most `pool_size` connections. `busy_seconds`: time-out of SQLite's file lock.

    `pragmas`: of SQLite, besides those of every connection.
    """
    sqlite = url.startswith("sqlite")
    engine = sa.create_engine(
        url,
        json_serializer=_dumps,
        json_deserializer=orjson.loads,
        pool_size=pool_size,
        max_overflow=0,
        pool_use_lifo=True,  # a few connections stay warm
        # Without it psycopg's row count of an `InsertOnce` is -1: whether the row was there before would be unknown.
        execution_options={"preserve_rowcount": True},
        hide_parameters=True,  # parameters are prompts and hashes: a logged error must not quote them
        connect_args={"timeout": busy_seconds, "check_same_thread": False}
        if sqlite
        else postgres.connect_args(url),
    )
    if not sqlite:
        sa.event.listen(engine, "do_connect", postgres.connect)
    sa.event.listen(engine, "connect", _note_creation)
    sa.event.listen(engine, "connect", partial(_prepare_sqlite, pragmas) if sqlite else postgres.prepare)
    return engine


def vacuum_file(engine: sa.Engine, seconds: float) -> None:
    """Rewrite an SQLite file and empty its write-ahead log: neither keeps what was deleted. Writers wait.

    Raises `sqlite3.OperationalError` where a reader keeps the log from being emptied for `seconds`.
    """
    file = sqlite3.connect(engine.url.database or "", timeout=seconds, isolation_level=None)
    with closing(file):
        file.execute("VACUUM")
        (busy, *_) = file.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        raise sqlite3.OperationalError("database is locked")


def _dumps(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def _note_creation(_connection: Any, record: Any) -> None:
    record.info[CREATED_AT] = time.monotonic()


def _prepare_sqlite(pragmas: Sequence[str], connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver sends no BEGIN of its own, see `Database._begin`
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",
        "foreign_keys=ON",
        "busy_timeout=5000",
        *pragmas,
    ):
        connection.execute(f"PRAGMA {pragma}")
