"""Lists of runs, without request and result, which may be large."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.store import scoped
from service.store.database import Row, Transaction
from service.store.schema import DIED, ENDED_BADLY, OF_ALL, UNFINISHED, runs
from service.store.transaction import filter_only
from service.store.visibility import Visibility, in_workspace
from service.text.sanitise import storable
from service.types import Run, RunStatus

MAX_INPUT = 200  # characters of the input in a list
_LENGTHS = {"model": 128, "stop_reason": 32}  # widths of columns
_LISTED = [column for column in runs.c if column.key not in ("request", "result")]
_UNFINISHED = (
    RunStatus.QUEUED,
    RunStatus.RUNNING,
    RunStatus.WAITING_APPROVAL,
    RunStatus.WAITING_BUDGET,
    RunStatus.PAUSED,
)
# Conditions of the partial indexes that hold the runs of a status.
_INDEXED_AS = {
    **dict.fromkeys(_UNFINISHED, UNFINISHED),
    **dict.fromkeys((RunStatus.FAILED, RunStatus.CANCELLED), ENDED_BADLY),
}


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Filter of a list of runs; None matches all. Of a session and a schedule, one."""

    status: str | None = None
    agent: str | None = None
    session_id: str | None = None
    schedule_id: str | None = None


def recent(
    tx: Transaction, filters: RunFilter, *, limit: int, before: str | None, visible: Visibility
) -> list[Row]:
    """List visible runs, newest first; ids sort by time, so the last id of a page is the cursor of the next."""
    query = sa.select(*_LISTED)
    if before is not None:
        query = query.where(runs.c.id < before)
    if filters.status is not None:
        query = query.where(runs.c.status == filters.status)
    if filters.status in _INDEXED_AS:
        query = query.where(sa.text(_INDEXED_AS[RunStatus(filters.status)]))
    if filters.session_id is not None or filters.schedule_id is not None:
        return _of_one(tx, query, filters, limit=limit, visible=visible)
    unfinished = filters.status in _UNFINISHED  # few: found by their status alone
    wanted = in_workspace(runs, visible.workspace_id)
    wanted += [
        runs.c[name] == value
        for name, value in (("user_id", visible.user_id), ("agent", filters.agent))
        if value is not None
    ]
    query = query.where(*map(filter_only, wanted) if unfinished else wanted)
    by_agent = bool(visible.scopes) or visible.in_small_workspace
    if by_agent and not unfinished:
        return scoped.newest(tx, runs, query, limit=limit, visible=visible, agent=filters.agent)
    if visible.user_id is None and filters.agent is None:
        query = query.where(sa.text(OF_ALL))
    query = query.where(*map(filter_only, Visibility(None, visible.scopes).where(runs)))
    return tx.rows(query.order_by(runs.c.id.desc()).limit(limit))


def _of_one(
    tx: Transaction, query: sa.Select[Any], filters: RunFilter, *, limit: int, visible: Visibility
) -> list[Row]:
    """List runs of `query` in a session or of a schedule; the user and the agents are compared with its page only.

    Either has one user and one agent, so all of its runs match or none. PostgreSQL takes the conditions for
    independent: it would expect few rows, and read and sort the whole session for a page.
    """
    of_session = filters.schedule_id is None
    column, value = (
        (runs.c.session_id, filters.session_id) if of_session else (runs.c.schedule_id, filters.schedule_id)
    )
    of_it = column == value
    query = query.where(filter_only(of_it) if filters.status in _UNFINISHED else of_it)
    page = query.order_by(runs.c.id.desc()).limit(limit).subquery()
    found = sa.select(page).where(*visible.where(page))
    if filters.agent is not None:
        found = found.where(page.c.agent == filters.agent)
    return tx.rows(found.order_by(page.c.id.desc()))


def unfinished(tx: Transaction) -> dict[str, Row]:
    """Count unfinished runs by status; `count`, and `since`, when the oldest began (ms)."""
    counts = sa.select(
        runs.c.status, sa.func.count().label("count"), sa.func.min(runs.c.created_at).label("since")
    )
    return {row["status"]: row for row in tx.rows(counts.where(sa.text(UNFINISHED)).group_by(runs.c.status))}


def dead(tx: Transaction, losses: int, limit: int) -> list[Row]:
    """List dead letters: runs that failed after losing `losses` workers, newest first."""
    query = sa.select(*_LISTED).where(sa.text(DIED), runs.c.losses >= losses)
    return tx.rows(query.order_by(runs.c.id.desc()).limit(limit))


def begun(run: Run) -> dict[str, Any]:
    """List columns known when a run begins."""
    return {"input": storable(run.request.question[:MAX_INPUT])}


def ended(result: dict[str, Any] | None) -> dict[str, Any]:
    """List columns known when a run has ended; upstream strings are cut to the width of their column."""
    values = result or {}
    strings = {name: (values.get(name) or "")[:length] or None for name, length in _LENGTHS.items()}
    return {"steps": values.get("steps"), **strings}
