"""Run migration steps, each in a transaction of its own, beside a running service.

A step that waits for a lock blocks all later lock requests. So it waits for `LOCK_MS` only, is rolled back to let them
pass, and is retried until `PATIENCE_SECONDS` pass without a finished step. Finished steps stay: the next run continues
after them.
"""

from __future__ import annotations

import random
import time
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory

from migrations.turn import Check, report
from service.store import fitness
from service.store.outages import Unfit
from service.store.schema import metadata

# Below PostgreSQL's `deadlock_timeout` (1 s): in a deadlock the migration gives way, not a request.
LOCK_MS = 500
PATIENCE_SECONDS = 300.0
PAUSE_SECONDS = 5.0  # maximum back-off between two attempts
_RETRIED = frozenset({"55P03", "40P01"})  # lock_not_available, deadlock_detected
# Of an index that the backend of a killed migration finishes while this one drops it. It has no code of its own.
_OVERTAKEN = "tuple concurrently updated"
_OLDEST = sa.text(
    # The service's tables have ids from 16384 on; lower ones are the server's own.
    "SELECT pid, state, extract(epoch FROM now() - xact_start)::int AS seconds FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND EXISTS (SELECT 1 FROM pg_locks "
    "WHERE pg_locks.pid = pg_stat_activity.pid AND granted AND relation >= 16384) ORDER BY xact_start LIMIT 1"
)


class Steps:
    """Steps of one command, over one connection. `check_lock` raises `Unfit` once the migration lock is lost."""

    def __init__(
        self,
        connection: sa.Connection,
        script: ScriptDirectory,
        check_lock: Check,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self._connection, self._script, self._check_lock = connection, script, check_lock
        self._patience = patience
        self._give_up_at = 0.0  # time.monotonic(); extended by each finished step
        self._relative = False  # the command counts steps, as `+2`: a retry after a step would count anew

    def run(self, revision: str | None) -> None:
        """Migrate to `revision`. Raises `Unfit` on giving up; finished steps stay."""
        self._give_up_at = time.monotonic() + self._patience
        self._relative = revision is not None and revision[0] in "+-"
        pause = 0.25
        while not self._try_steps():
            self._check_lock()
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, PAUSE_SECONDS)

    def _try_steps(self) -> bool:
        """Run all steps. False: a lock timed out, retry."""
        try:
            configure(self._connection, on_version_apply=self._finish_step, **_own_transactions())
            with context.begin_transaction():
                context.run_migrations()
                self._keep_oldest_code()
            self._connection.commit()
            return True
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in _RETRIED and _OVERTAKEN not in str(error.orig):
                raise
            self._connection.rollback()
            self._wait_or_give_up(error)
            return False

    def _finish_step(self, *, ctx: MigrationContext, step: MigrationInfo, **_: Any) -> None:
        """Finish a step, in its own transaction, and report it: a large table takes minutes."""
        self._check_lock()
        self._keep_oldest_code()
        self._give_up_at = 0.0 if self._relative else time.monotonic() + self._patience
        if (script := step.up_revision) is not None:
            report(f"{'up to' if step.is_upgrade else 'back from'} {script.revision}, {script.doc}")

    def _keep_oldest_code(self) -> None:
        """Store the oldest revision whose code runs on the database as it is now."""
        found = MigrationContext.configure(self._connection).get_current_revision()
        fitness.keep_oldest_code(self._connection, self._oldest_code(found))

    def _oldest_code(self, found: str | None) -> str | None:
        if found is None:
            return None
        applied = [step for step in self._script.iterate_revisions(found, "base") if step is not None][::-1]
        order = [step.revision for step in applied]
        oldest = [getattr(step.module, "OLDEST_CODE", step.revision) for step in applied]
        return max(oldest, key=order.index)

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
        report(f"after revision {found}, waiting for locks{holder}")


def configure(connection: sa.Connection, **options: Any) -> None:
    batch = connection.dialect.name == "sqlite"
    context.configure(connection=connection, target_metadata=metadata, render_as_batch=batch, **options)


def _own_transactions() -> dict[str, bool]:
    return {"transaction_per_migration": True, "transactional_ddl": True}


def prepare(connection: sa.Connection) -> None:
    """Set up how transactions begin. Call it before the connection's first one."""
    if connection.dialect.name == "sqlite":
        driver: Any = connection.connection.driver_connection
        driver.isolation_level = None  # otherwise it commits before every CREATE and ALTER
        driver.execute("PRAGMA journal_mode=WAL")
        sa.event.listen(connection, "begin", lambda begun: begun.exec_driver_sql("BEGIN IMMEDIATE"))
    else:
        sa.event.listen(connection, "begin", _bound_locks)


def _bound_locks(connection: sa.Connection) -> None:
    """Set `lock_timeout` for this transaction only: a pooler gives the session to others."""
    driver: Any = connection.connection.driver_connection
    if not driver.autocommit:  # CONCURRENTLY waits without blocking others
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {LOCK_MS}")
