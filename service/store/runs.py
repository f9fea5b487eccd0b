"""Runs table. Each write of a worker to its run is fenced by the run's attempt: False when another took over."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
import sqlalchemy as sa

from service.errors import AgentStopped
from service.ids import first_id
from service.store import agent_stops, files, run_lists
from service.store.database import Row, Transaction, clock_ms
from service.store.run_values import inserted_values, progress_values, result_values, run_of
from service.store.schema import runs, workers
from service.store.statement import Statement
from service.store.users import is_refused
from service.store.visibility import UNRESTRICTED, Visibility
from service.types import Run, RunStatus, now_ms

_BY_ID = Statement(sa.select(runs).where(runs.c.id == sa.bindparam("id")))
_HAS_LEASE = sa.exists(
    sa.select(workers.c.id).where(workers.c.id == runs.c.worker_id, workers.c.alive_until > clock_ms())
)

ABANDONED = sa.and_(runs.c.finished_at.is_(None), runs.c.status == RunStatus.RUNNING, ~_HAS_LEASE)
# A paused run is a queued one that has begun. A cancelled one is taken up by the next worker, which ends it.
_IN_QUEUE = sa.or_(runs.c.status == RunStatus.QUEUED, runs.c.status == RunStatus.PAUSED)
_CLAIMABLE = sa.and_(_IN_QUEUE, sa.or_(~agent_stops.stopped(runs.c.agent), runs.c.cancel_requested))


def waits_at(now: Any) -> sa.ColumnElement[bool]:
    """Condition for queued runs to be announced (again) at a time in ms."""
    return sa.and_(runs.c.finished_at.is_(None), runs.c.wake_at <= now, _CLAIMABLE)


@cache
def _insert(*names: str) -> Statement:
    return agent_stops.insert_unless_stopped(runs, names)


@cache
def _fenced_update(*names: str) -> Statement:
    """Update of these columns while the attempt still owns the run."""
    return Statement(
        sa.update(runs)
        .where(runs.c.id == sa.bindparam("run"), runs.c.attempt == sa.bindparam("fence"))
        .where(runs.c.status == RunStatus.RUNNING)
        .values({runs.c[name]: sa.bindparam(f"v_{name}", type_=runs.c[name].type) for name in names})
    )


def insert(tx: Transaction, run: Run, *, worker_id: str | None, wake_at: int | None = None) -> bool:
    """Insert a run: running on `worker_id` (attempt 1), or queued, to be announced again at `wake_at`.

    False: it exists already, from a commit whose answer was lost. Raises `AgentStopped`.
    """
    values = tx.sealed(runs, inserted_values(run), run.user_id) | {"worker_id": worker_id, "wake_at": wake_at}
    if tx.execute(_insert(*values), values, expect=1) == 1:
        return True
    if agent_stops.get(tx, run.agent) is not None:
        raise AgentStopped(f"The agent {run.agent} is stopped.")
    return False


def get(tx: Transaction, run_id: str, visible: Visibility = UNRESTRICTED) -> Run | None:
    """Find one run that is visible."""
    row = tx.row(_BY_ID, {"id": run_id})
    if row is None or not visible.covers(row):
        return None
    return run_of(row)


def progress(tx: Transaction, run: Run, attempt: int) -> bool:
    return _update_owned(tx, run.id, attempt, progress_values(run))


def note_version(tx: Transaction, run: Run) -> bool:
    return _update_owned(tx, run.id, run.attempt, {"agent_version": run.agent_version})


def finish(tx: Transaction, run: Run, attempt: int) -> bool:
    """Store the end of a run: its worker's last write."""
    values = {
        "status": run.status,
        "tier": run.tier,
        **progress_values(run),
        **result_values(run),
        "error": run.error,
        "finished_at": run.finished_at,
        "worker_id": None,
    }
    return _leave(tx, run, attempt, values)


def record_end(tx: Transaction, run: Run) -> None:
    """Store the end of a run that was answered from the cache, without execution."""
    values = {
        "status": run.status,
        **result_values(run),
        "finished_at": run.finished_at,
        "last_seq": run.last_seq,
    }
    sealed = tx.sealed(runs, values, run.user_id)
    tx.execute(sa.update(runs).where(runs.c.id == run.id).values(**sealed, worker_id=None))


def suspend(tx: Transaction, run: Run, attempt: int) -> bool:
    """Release the run to wait for an approval."""
    values = {"status": RunStatus.WAITING_APPROVAL, "worker_id": None, **progress_values(run)}
    return _leave(tx, run, attempt, values)


def park(tx: Transaction, run: Run, attempt: int) -> bool:
    """Queue the run beside the line, without a wake-up time: a batch's answer wakes it."""
    return _leave(tx, run, attempt, _queued_values(run), wake_at=None, in_line=False)


def pause(tx: Transaction, run: Run, attempt: int) -> bool:
    """Queue the run until its agent is released."""
    return _leave(tx, run, attempt, _queued_values(run) | {"status": RunStatus.PAUSED}, wake_at=now_ms())


def wait_for_budget(tx: Transaction, run: Run, attempt: int, *, until: int) -> bool:
    """Release the run to wait for room under a cap, `until` a time (ms) at the latest."""
    values = {"status": RunStatus.WAITING_BUDGET, "worker_id": None, "wake_at": until}
    return _leave(tx, run, attempt, values | progress_values(run))


def close(tx: Transaction, run: Run, was: Sequence[RunStatus]) -> bool:
    """End a run that no worker executes: cancelled while it waited, or lost too often."""
    values = {
        "status": run.status,
        **result_values(run),
        "error": run.error,
        "last_seq": run.last_seq,
        "finished_at": run.finished_at,
        "worker_id": None,
    }
    of_attempt = runs.c.id == run.id, runs.c.status.in_(was), runs.c.attempt == run.attempt
    return tx.execute(sa.update(runs).where(*of_attempt).values(tx.sealed(runs, values, run.user_id))) == 1


def claim(tx: Transaction, run_id: str, worker_id: str) -> bool:
    """Claim a queued run of an agent that is not stopped, or one whose worker's lease has expired. False: neither."""
    abandoned = sa.and_(runs.c.status == RunStatus.RUNNING, ~_HAS_LEASE)
    statement = (
        sa.update(runs)
        .where(runs.c.id == run_id)
        .where(sa.or_(_CLAIMABLE, abandoned))
        .values(
            status=RunStatus.RUNNING,
            worker_id=worker_id,
            attempt=runs.c.attempt + 1,
            losses=runs.c.losses + sa.case((runs.c.status == RunStatus.RUNNING, 1), else_=0),
            wake_at=None,
            cancel_requested=sa.or_(runs.c.cancel_requested, is_refused(runs.c.user_id)),
            started_at=sa.func.coalesce(runs.c.started_at, now_ms()),
        )
    )
    return tx.execute(statement) == 1


def release(tx: Transaction, run: Run, attempt: int) -> bool:
    """Queue the run for another worker at once; not counted as a loss."""
    return _leave(tx, run, attempt, _queued_values(run), wake_at=now_ms())


def abandon(tx: Transaction, run_id: str, attempt: int) -> bool:
    """Disown a run that its live worker does not execute any more; counted as a loss."""
    return _update_owned(tx, run_id, attempt, {"worker_id": None})


def requeue(tx: Transaction, run_id: str, was: Sequence[RunStatus], wake_at: int) -> bool:
    """Queue a run again: after a decision, or a retry by a person. False: its status is not in `was`."""
    reset = {"worker_id": None, "finished_at": None, "losses": 0, "result": None, "error": None}
    reset |= run_lists.ended(None)
    statement = (
        sa.update(runs)
        .where(runs.c.id == run_id, runs.c.status.in_(was))
        .values(status=RunStatus.QUEUED, wake_at=wake_at, **reset)
    )
    if tx.execute(statement) == 1:
        return True
    # A retry after a commit whose answer was lost finds its own time.
    row = tx.row(_BY_ID, {"id": run_id})
    return row is not None and row["status"] == RunStatus.QUEUED and row["wake_at"] == wake_at


def ask_cancel(tx: Transaction, run_id: str) -> None:
    tx.execute(sa.update(runs).where(runs.c.id == run_id).values(cancel_requested=True))


def abandoned(tx: Transaction, limit: int) -> list[Row]:
    """List running runs whose worker's lease has expired."""
    return tx.rows(sa.select(runs.c.id, runs.c.door).where(ABANDONED).limit(limit))


def waiting(tx: Transaction, limit: int) -> list[Row]:
    """List queued runs that are due to be announced (again), oldest first."""
    query = sa.select(runs.c.id, runs.c.door).where(waits_at(now_ms()))
    return tx.rows(query.order_by(runs.c.id).limit(limit))


def waiting_of_refused(tx: Transaction, limit: int) -> list[str]:
    """List ids of runs that no worker executes, of users who are refused, oldest first."""
    # Each status by itself: SQLite looks none of them up where some stand in a list.
    waits = sa.or_(
        _IN_QUEUE,
        runs.c.status == RunStatus.WAITING_APPROVAL,
        runs.c.status == RunStatus.WAITING_BUDGET,
    )
    found = sa.select(runs.c.id).where(runs.c.finished_at.is_(None), waits, is_refused(runs.c.user_id))
    return [row["id"] for row in tx.rows(found.order_by(runs.c.id).limit(limit))]


def announced(tx: Transaction, run_ids: Sequence[str], wake_at: int) -> None:
    """Set the next `wake_at` of queued runs that were announced."""
    queued = sa.select(runs.c.id).where(runs.c.id.in_(run_ids), _IN_QUEUE)
    free = queued.order_by(runs.c.id).with_for_update(skip_locked=True)  # a locked one is just being claimed
    tx.execute(sa.update(runs).where(runs.c.id.in_(free)).values(wake_at=wake_at))


def expire(tx: Transaction, before: int, limit: int) -> int:
    """Delete at most `limit` runs that ended before `before` (ms), with their steps; return how many."""
    # There is no index on the end: a run that ended before a time began before it, and ids sort by the beginning.
    began = runs.c.id < first_id("run", before)
    old = sa.select(runs.c.id).where(began, runs.c.finished_at < before).order_by(runs.c.id).limit(limit)
    return delete(tx, [row["id"] for row in tx.rows(old.with_for_update(skip_locked=True))])


def delete(tx: Transaction, ids: Sequence[str]) -> int:
    """Delete ended runs with all that depends on them, and the files that only they refer to; return how many."""
    referred = files.of_runs(tx, ids)
    deleted = tx.execute(sa.delete(runs).where(runs.c.id.in_(ids), runs.c.finished_at.is_not(None)))
    files.drop_unused(tx, referred)
    return deleted


def _update_owned(tx: Transaction, run_id: str, attempt: int, values: dict[str, Any]) -> bool:
    given = {"run": run_id, "fence": attempt, **{f"v_{name}": value for name, value in values.items()}}
    return tx.execute(_fenced_update(*values), given, expect=1) == 1


def _leave(tx: Transaction, run: Run, attempt: int, values: dict[str, Any], **may_differ: int | None) -> bool:
    """Store an attempt's last write to its run.

    True also for a retry after a commit whose answer was lost: the row has this attempt and these values. The values
    are compared because another may have ended the run in the same millisecond.
    """
    if _update_owned(tx, run.id, attempt, tx.sealed(runs, values, run.user_id) | may_differ):
        return True
    row = tx.row(_BY_ID, {"id": run.id})
    return row is not None and row["attempt"] == attempt and _as_stored(values).items() <= row.items()


def _queued_values(run: Run) -> dict[str, Any]:
    return {"status": RunStatus.QUEUED, "worker_id": None, **progress_values(run)}


def _as_stored(values: dict[str, Any]) -> dict[str, Any]:
    """Values as the database returns them."""
    plain: dict[str, Any] = orjson.loads(orjson.dumps(values, option=orjson.OPT_NON_STR_KEYS))
    return plain
