"""Run migration steps, each in a transaction of its own, beside a service that goes on working.

A step that wants a lock makes everyone queue behind it who comes later. So it waits for `LOCK_MS` only; then it is
undone, lets them pass and is tried again, until `PATIENCE_SECONDS` have gone by without a step that was done. What is
done stays: the next run goes on from there.
"""

from __future__ import annotations

import random
import time
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory

from migrations.turn import Check, tell
from service.store import fitness
from service.store.outages import Unfit
from service.store.schema import metadata

# Below PostgreSQL's `deadlock_timeout` (1 s): of a deadlock the migration gives way, and no request.
LOCK_MS = 500
PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = 5.0  # the longest between two attempts
_AGAIN = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected
_OLDEST = sa.text(
    # Tables of the service have ids from 16384 on; those below are the server's own.
    "SELECT pid, state, extract(epoch FROM now() - xact_start)::int AS seconds FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND EXISTS (SELECT 1 FROM pg_locks "
    "WHERE pg_locks.pid = pg_stat_activity.pid AND granted AND relation >= 16384) ORDER BY xact_start LIMIT 1"
)


class Steps:
    """The steps of one command, over one connection. `still_ours` raises `Unfit` once another may migrate."""

    def __init__(
        self,
        connection: sa.Connection,
        script: ScriptDirectory,
        still_ours: Check,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._connection, self._script, self._still_ours = connection, script, still_ours
        self._patience = patience
        self._give_up_at = 0.0  # time.monotonic(); later with every step that is done
        self._relative = False  # the command counts steps, as `+2`: after one of them it would count anew

    def run(self, wanted: str | None) -> None:
        """Bring the database to `wanted`, or as far as it comes. Raises `Unfit` when it gives up."""
        self._give_up_at = time.monotonic() + self._patience
        self._relative = wanted is not None and wanted[0] in "+-"
        pause = 0.25
        while not self._attempted():
            self._still_ours()
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, PAUSE_SECONDS)

    def _attempted(self) -> bool:
        """False: a lock could not be had, try again."""
        try:
            configure(self._connection, on_version_apply=self._done, **_own_transactions())
            with context.begin_transaction():
                context.run_migrations()
                self._keep_oldest_code()
            self._connection.commit()
            return True
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _AGAIN:
                raise
            self._connection.rollback()
            self._wait_or_give_up(error)
            return False

    def _done(self, *, ctx: MigrationContext, step: MigrationInfo, **_: Any) -> None:
        """Finish a step, in its own transaction. A large table takes minutes: say what is done as it is done."""
        self._still_ours()
        self._keep_oldest_code()
        self._give_up_at = 0.0 if self._relative else time.monotonic() + self._patience
        if (script := step.up_revision) is not None:
            tell(f"{'up to' if step.is_upgrade else 'back from'} {script.revision}, {script.doc}")

    def _keep_oldest_code(self) -> None:
        """Write down the oldest revision whose code runs on the database as it is now."""
        found = MigrationContext.configure(self._connection).get_current_revision()
        fitness.keep_oldest_code(self._connection, self._oldest_code(found))

    def _oldest_code(self, found: str | None) -> str | None:
        if found is None:
            return None
        applied = [each for each in self._script.iterate_revisions(found, "base") if each is not None][::-1]
        order = [each.revision for each in applied]
        said = [getattr(each.module, "OLDEST_CODE", each.revision) for each in applied]
        return max(said, key=order.index)

    def _wait_or_give_up(self, error: sa.exc.DBAPIError) -> None:
        found = MigrationContext.configure(self._connection).get_current_revision()
        oldest = self._connection.execute(_OLDEST).one_or_none()
        self._connection.rollback()
        holder = ""
        if oldest is not None and oldest.seconds is not None:
            holder = f": process {oldest.pid} of the database server, {oldest.state}, holds some for {oldest.seconds} s"
        if time.monotonic() > self._give_up_at:
            raise Unfit(
                f"It is at revision {found}; the next step could not have its locks{holder}. "
                "What is done stays: run it again when that transaction has ended."
            ) from error
        tell(f"after revision {found}, waiting for locks{holder}")


def configure(connection: sa.Connection, **options: Any) -> None:
    batch = connection.dialect.name == "sqlite"
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=batch, **options)


def _own_transactions() -> dict[str, bool]:
    return {"transaction_per_migration": True, "transactional_ddl": True}


def prepare(connection: sa.Connection) -> None:
    """Let transactions begin as steps need them. Call it before the connection's first one."""
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        driver.isolation_level = None  # else it commits before every CREATE and ALTER
        driver.execute("PRAGMA journal_mode=WAL")
        sa.event.listen(connection, "begin", lambda each: each.exec_driver_sql("BEGIN IMMEDIATE"))
    else:
        sa.event.listen(connection, "begin", _bound_locks)


def _bound_locks(connection: sa.Connection) -> None:
    """Bound waiting for locks, for this transaction: a pooler gives the session to others."""
    driver: Any = connection.connection.driver_connection
    if not driver.autocommit:  # what is done CONCURRENTLY waits without holding anyone up
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MS}")
