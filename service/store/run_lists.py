"""Lists of runs. The request and the result, which may be large, are not read for them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.sanitise import storable
from service.store.base import Row, Transaction
from service.store.schema import runs
from service.store.visibility import Visibility
from service.types import Run, RunStatus

LONGEST_INPUT = 200  # characters of the question that a list shows
_LENGTHS = {"model": 128, "stop_reason": 32}  # of their columns
_LISTED = [column for column in runs.c if column.key not in ("request", "result")]


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
    query = sa.select(*_LISTED).where(*visible.where(runs)).order_by(runs.c.id.desc()).limit(limit)
    wanted = {"status": status, "agent": agent, "session_id": session_id}
    for column, value in wanted.items():
        if value is not None:
            query = query.where(runs.c[column] == value)
    if before is not None:
        query = query.where(runs.c.id < before)
    return tx.rows(query)


def dead(tx: Transaction, losses: int, limit: int) -> list[Row]:
    """Runs that failed because they lost so many workers, newest first."""
    query = sa.select(*_LISTED).where(runs.c.status == RunStatus.FAILED, runs.c.losses >= losses)
    return tx.rows(query.order_by(runs.c.id.desc()).limit(limit))


def begun(run: Run) -> dict[str, Any]:
    """Columns for lists that are known when a run begins."""
    return {"input": storable(run.request.question[:LONGEST_INPUT])}


def ended(result: dict[str, Any] | None) -> dict[str, Any]:
    """Columns for lists that are known when a run has ended. An upstream's words are cut to what a column takes."""
    known = result or {}
    words = {name: (known.get(name) or "")[:length] or None for name, length in _LENGTHS.items()}
    return {"steps": known.get("steps"), **words}
