"""Lists of runs, without request and result, which may be large."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from service.store import scoped
from service.store.database import Row, Transaction
from service.store.schema import DIED, ENDED_BADLY, UNFINISHED, runs
from service.store.transaction import PLANNED_ANEW, filter_only
from service.store.visibility import Visibility
from service.text.sanitise import storable
from service.types import Run, RunStatus

MAX_INPUT = 200  # characters of the input in a list
_LENGTHS = {"model": 128, "stop_reason": 32}  # widths of columns
_LISTED = [column for column in runs.c if column.key not in ("request", "result")]
_UNFINISHED = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING_APPROVAL)
# Conditions of the partial indexes that hold the runs of a status.
_INDEXED_AS = {
    **dict.fromkeys(_UNFINISHED, UNFINISHED),
    **dict.fromkeys((RunStatus.FAILED, RunStatus.CANCELLED), ENDED_BADLY),
}


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Filter of a list of runs; None matches all."""

    status: str | None = None
    agent: str | None = None
    session_id: str | None = None


def recent(
    tx: Transaction, filters: RunFilter, *, limit: int, before: str | None, visible: Visibility
) -> list[Row]:
    """List visible runs, newest first; ids sort by time, so the last id of a page is the cursor of the next."""
    values = {"user_id": visible.user_id, **asdict(filters)}
    conditions: dict[str, list[Any]] = {
        name: [runs.c[name] == value] for name, value in values.items() if value is not None
    }
    if filters.status in _INDEXED_AS:
        conditions["status"].append(sa.text(_INDEXED_AS[RunStatus(filters.status)]))
    indexed = _indexed(conditions, filters.status)
    query = sa.select(*_LISTED)
    for name, of_name in conditions.items():
        query = query.where(*(of_name if name in indexed else map(filter_only, of_name)))
    if before is not None:
        query = query.where(runs.c.id < before)
    if visible.scopes and indexed is conditions:
        return scoped.newest(tx, runs, query, limit=limit, visible=visible, agent=filters.agent)
    query = query.where(*map(filter_only, Visibility(None, visible.scopes).where(runs)))
    return tx.rows(query.order_by(runs.c.id.desc()).limit(limit).execution_options(**PLANNED_ANEW))


def _indexed(filters: Collection[str], status: str | None) -> Collection[str]:
    """Choose the filters with the most selective index."""
    if "session_id" in filters:
        return ("session_id",)
    if status in _UNFINISHED:
        return ("status",)
    return filters


def dead(tx: Transaction, losses: int, limit: int) -> list[Row]:
    """List dead letters: runs that failed after losing `losses` workers, newest first."""
    query = sa.select(*_LISTED).where(sa.text(DIED), runs.c.losses >= losses)
    return tx.rows(query.order_by(runs.c.id.desc()).limit(limit).execution_options(**PLANNED_ANEW))


def begun(run: Run) -> dict[str, Any]:
    """List columns known when a run begins."""
    return {"input": storable(run.request.question[:MAX_INPUT])}


def ended(result: dict[str, Any] | None) -> dict[str, Any]:
    """List columns known when a run has ended; upstream strings are cut to the width of their column."""
    values = result or {}
    strings = {name: (values.get(name) or "")[:length] or None for name, length in _LENGTHS.items()}
    return {"steps": values.get("steps"), **strings}
