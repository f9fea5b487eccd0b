"""Lists of runs. The request and the result, which may be large, are not read for them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from service.store import scoped
from service.store.database import Row, Transaction
from service.store.schema import DIED, ENDED_BADLY, UNFINISHED, runs
from service.store.transaction import PLANNED_ANEW, filter_only
from service.store.visibility import Visibility
from service.text.sanitise import storable
from service.types import Run, RunStatus

LONGEST_INPUT = 200  # characters of the question that a list shows
_LENGTHS = {"model": 128, "stop_reason": 32}  # of their columns
_LISTED = [column for column in runs.c if column.key not in ("request", "result")]
_UNFINISHED = (RunStatus.QUEUED, RunStatus.RUNNING, RunStatus.WAITING_APPROVAL)
# What is true of every run of a status, in the words of the index that holds such runs alone.
_INDEXED_AS = {
    **dict.fromkeys(_UNFINISHED, UNFINISHED),
    **dict.fromkeys((RunStatus.FAILED, RunStatus.CANCELLED), ENDED_BADLY),
}


def recent(
    tx: Transaction,
    *,
    limit: int,
    before: str | None,
    visible: Visibility,
    status: str | None = None,
    agent: str | None = None,
    session_id: str | None = None,
) -> list[Row]:
    """List visible runs, newest first; ids sort by time, so the last id of a page is the cursor of the next."""
    wanted = {"user_id": visible.user_id, "agent": agent, "status": status, "session_id": session_id}
    asked: dict[str, list[Any]] = {
        name: [runs.c[name] == value] for name, value in wanted.items() if value is not None
    }
    if status in _INDEXED_AS:
        asked["status"].append(sa.text(_INDEXED_AS[RunStatus(status)]))
    by = _index_for(asked, status)
    query = sa.select(*_LISTED)
    for name, conditions in asked.items():
        query = query.where(*(conditions if name in by else map(filter_only, conditions)))
    if before is not None:
        query = query.where(runs.c.id < before)
    if visible.scopes and by is asked:
        return scoped.newest(tx, runs, query, limit=limit, visible=visible, agent=agent)
    query = query.where(*map(filter_only, Visibility(None, visible.scopes).where(runs)))
    return tx.rows(query.order_by(runs.c.id.desc()).limit(limit).execution_options(**PLANNED_ANEW))


def _index_for(asked: Collection[str], status: str | None) -> Collection[str]:
    """Choose the filters whose index leaves fewest runs."""
    if "session_id" in asked:
        return ("session_id",)
    if status in _UNFINISHED:
        return ("status",)
    return asked


def dead(tx: Transaction, losses: int, limit: int) -> list[Row]:
    """Runs that failed because they lost so many workers, newest first."""
    query = sa.select(*_LISTED).where(sa.text(DIED), runs.c.losses >= losses)
    return tx.rows(query.order_by(runs.c.id.desc()).limit(limit).execution_options(**PLANNED_ANEW))


def begun(run: Run) -> dict[str, Any]:
    """Columns for lists that are known when a run begins."""
    return {"input": storable(run.request.question[:LONGEST_INPUT])}


def ended(result: dict[str, Any] | None) -> dict[str, Any]:
    """Columns for lists that are known when a run has ended. An upstream's words are cut to what a column takes."""
    known = result or {}
    words = {name: (known.get(name) or "")[:length] or None for name, length in _LENGTHS.items()}
    return {"steps": known.get("steps"), **words}
