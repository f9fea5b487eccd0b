"""Ownership of runs by attempts (fencing tokens), and attempts whose live stream has a gap."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from service.store.agent_stops import stopped
from service.store.database import Row, Transaction
from service.store.schema import runs
from service.store.statement import Statement
from service.store.users import is_refused
from service.types import RunStatus

HELD = sa.select(
    runs.c.id, runs.c.attempt, runs.c.cancel_requested, is_refused(runs.c.user_id).label("refused")
).where(
    runs.c.finished_at.is_(None),
    runs.c.status == RunStatus.RUNNING,
    runs.c.worker_id == sa.bindparam("worker"),
)
_HELD = Statement(HELD)


def held(tx: Transaction, worker_id: str) -> list[Row]:
    """List the runs a worker executes: `id`, `attempt`, `cancel_requested`; `refused`: their user may not sign in."""
    return tx.rows(_HELD, {"worker": worker_id})


def attempts(tx: Transaction, run_ids: Sequence[str]) -> dict[str, int]:
    """Latest attempt of each of these runs that is in the database, by run id."""
    query = sa.select(runs.c.id, runs.c.attempt).where(runs.c.id.in_(run_ids))
    return {row["id"]: row["attempt"] for row in tx.rows(query)}


def running(tx: Transaction, run_ids: Sequence[str]) -> dict[str, bool]:
    """Return whether each of these runs is running, by run id; without those that are not in the database."""
    query = sa.select(runs.c.id, runs.c.status).where(runs.c.id.in_(run_ids))
    return {row["id"]: row["status"] == RunStatus.RUNNING for row in tx.rows(query)}


_RUNNING = Statement(
    sa.select(
        runs.c.id,
        runs.c.cancel_requested,
        is_refused(runs.c.user_id).label("refused"),
        stopped(runs.c.agent).label("stopped"),
    ).where(
        runs.c.id == sa.bindparam("run"),
        runs.c.attempt == sa.bindparam("fence"),
        runs.c.status == RunStatus.RUNNING,
    )
)


def owned_by(tx: Transaction, run_id: str, attempt: int) -> Row | None:
    """Find the run of this attempt: `cancel_requested`, `refused` as in `held`, `stopped`: whether its agent is.

    None: another worker owns it, or it is gone.
    """
    return tx.row(_RUNNING, {"run": run_id, "fence": attempt})


_LIVE_GAP = Statement(
    sa.update(runs)
    .where(runs.c.id == sa.bindparam("run"), runs.c.attempt == sa.bindparam("fence"))
    .values(live_gap_attempt=runs.c.attempt)
)


def note_live_gaps(tx: Transaction, attempts: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
    """Mark attempts, as (run id, attempt), whose events are missing in the live stream; return those still current."""
    return {
        (run_id, attempt)
        for run_id, attempt in sorted(attempts)
        if tx.execute(_LIVE_GAP, {"run": run_id, "fence": attempt}) == 1
    }
