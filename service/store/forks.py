"""Steps that a fork keeps: copied from the run that it is of, in the transaction that opens it."""

from __future__ import annotations

import sqlalchemy as sa

from service.store import steps as step_rows
from service.store.database import Row, Transaction
from service.store.schema import session_files, steps
from service.types import Run

DOOR = "fork/task"  # of each fork
KEPT = 0  # attempt of a kept step: no attempt at the fork made it, and the fork does not pay for it


def keep_steps(tx: Transaction, run: Run, of: str, before: int) -> None:
    """Copy the steps of the run `of` numbered less than `before`, without events: the fork tells of its own steps."""
    for row in _steps(tx, of):
        if row["n"] < before:
            none = {"attempt": KEPT, "events": [], "first_seq": 0, "last_seq": 0, "cost_nano": 0}
            step_rows.insert(tx, {**row, **none, "run_id": run.id}, run.user_id)


def numbers(tx: Transaction, run_id: str) -> list[int]:
    """List the numbers of a run's steps, in order."""
    query = sa.select(steps.c.n).where(steps.c.run_id == run_id, steps.c.kind != step_rows.NOTE)
    return [row["n"] for row in tx.rows(query.order_by(steps.c.n))]


def from_step(tx: Transaction, run_id: str, first: int) -> list[Row]:
    """Read a run's steps from a number on."""
    return [row for row in _steps(tx, run_id) if row["n"] >= first]


def has_remote_step(tx: Transaction, run_id: str) -> bool:
    query = sa.select(steps.c.n).where(steps.c.run_id == run_id, steps.c.kind == "remote")
    return tx.row(query.limit(1)) is not None


def session_has_files(tx: Transaction, session_id: str) -> bool:
    query = sa.select(session_files.c.digest).where(session_files.c.session_id == session_id)
    return tx.row(query.limit(1)) is not None


def _steps(tx: Transaction, run_id: str) -> list[Row]:
    return [row for row in step_rows.of_run(tx, run_id) if row["kind"] != step_rows.NOTE]
