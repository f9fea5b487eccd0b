"""Migration lock: one migrator at a time; others wait, and then find nothing to do.

On PostgreSQL a transaction-level advisory lock on a connection of its own. It ends with its transaction, however the
migrator ends, so a pooler leaves no lock behind on a connection that it gives to others. CREATE INDEX CONCURRENTLY
waits for every transaction with an older snapshot: the one that holds the lock is READ COMMITTED and idle, so it has
none, and waiting migrators poll instead of blocking inside the database.

On SQLite the write lock of the service's own writers (`service.store.sqlite_writers`).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import sqlalchemy as sa

from service.errors import DatabaseUnavailable
from service.store.outages import Unfit
from service.store.sqlite_writers import Writers

KEY = 7325711  # of the advisory lock; earlier versions use it as a session-level lock
WAIT_SECONDS = 600.0  # for another migrator
POLL_SECONDS = 0.5
REPORT_SECONDS = 10.0

_TRY = sa.select(sa.func.pg_try_advisory_xact_lock(KEY))
_HOLDER = sa.text(
    "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database AND datname = current_database() "
    f"WHERE locktype = 'advisory' AND granted AND classid = 0 AND objid = {KEY}"
)

Check = Callable[[], None]  # raises `Unfit` once the lock is lost


def report(text: str) -> None:
    print(f"alembic: {text}", file=sys.stderr, flush=True)


def turn(engine: sa.Engine, seconds: float = WAIT_SECONDS) -> AbstractContextManager[Check]:
    """Hold the migration lock; yields a check that it is still held. Raises `Unfit` after `seconds` of waiting."""
    if engine.dialect.name == "sqlite":
        return _sqlite_turn(Path(engine.url.database or ""), seconds)
    return _postgresql_turn(engine, seconds)


@contextmanager
def _sqlite_turn(database: Path, seconds: float) -> Iterator[Check]:
    writers = Writers(database, seconds)
    try:
        with writers.turn():
            yield lambda: None
    except DatabaseUnavailable as error:
        raise Unfit(str(error)) from error
    finally:
        writers.close()


@contextmanager
def _postgresql_turn(engine: sa.Engine, seconds: float) -> Iterator[Check]:
    with engine.connect().execution_options(isolation_level="READ COMMITTED") as connection:
        _acquire(connection, seconds)

        def check() -> None:
            try:
                connection.execute(sa.text("SELECT 1"))
            except sa.exc.DBAPIError as error:
                raise Unfit(
                    "The connection that keeps other migrations out was lost. The steps that were told are done: "
                    "run it again for the rest."
                ) from error

        yield check


def _acquire(connection: sa.Connection, seconds: float) -> None:
    deadline, report_at = time.monotonic() + seconds, 0.0
    while not connection.execute(_TRY).scalar_one():
        holder = connection.execute(_HOLDER).scalar()
        connection.rollback()
        if time.monotonic() > deadline:
            raise Unfit(
                f"Another migration is under way: process {holder} of the database server holds its lock."
            )
        if time.monotonic() >= report_at:
            report(f"another migration is under way (process {holder} of the database server): waiting")
            report_at = time.monotonic() + REPORT_SECONDS
        time.sleep(POLL_SECONDS)
    # The connection is idle for as long as a large index takes to build.
    connection.execute(sa.text("SET LOCAL idle_in_transaction_session_timeout = 0"))
