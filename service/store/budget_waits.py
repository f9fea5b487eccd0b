"""Runs that wait for room under spending caps. The last note of such a run says what it needs."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from service.store.database import Row, Transaction
from service.store.schema import UNFINISHED, runs, steps
from service.types import RunStatus, now_ms

# Said literally, so that the partial index of unfinished runs serves it.
_WAITS = sa.and_(sa.text(f"runs.{UNFINISHED}"), runs.c.status == RunStatus.WAITING_BUDGET)
ANY = sa.exists().where(_WAITS)


def page(tx: Transaction, after: str, limit: int) -> list[Row]:
    """List waiting runs after the id `after`, oldest first: `id`, `wake_at`, and `reply`, that of their last note."""
    waiting = sa.select(runs.c.id, runs.c.wake_at).where(_WAITS, runs.c.id > after)
    found = waiting.order_by(runs.c.id).limit(limit).subquery()
    each = steps.alias()
    last = sa.select(sa.func.max(each.c.n)).where(each.c.run_id == found.c.id).scalar_subquery()
    joined = found.join(steps, sa.and_(steps.c.run_id == found.c.id, steps.c.n == last))
    return tx.rows(sa.select(found, steps.c.reply).select_from(joined).order_by(found.c.id))


def still_queued(tx: Transaction, run_ids: Sequence[str]) -> list[str]:
    """List those of these runs that no worker has taken up."""
    queued = sa.select(runs.c.id).where(runs.c.id.in_(run_ids), runs.c.status == RunStatus.QUEUED)
    return [row["id"] for row in tx.rows(queued)] if run_ids else []


def wake(tx: Transaction, run_ids: Sequence[str]) -> int:
    """Queue waiting runs, tasks in their line; return how many. One that is being cancelled is left alone."""
    waiting = sa.select(runs.c.id).where(runs.c.id.in_(run_ids), _WAITS)
    free = waiting.order_by(runs.c.id).with_for_update(skip_locked=True)
    queued = {"status": RunStatus.QUEUED, "wake_at": now_ms(), "losses": 0}
    queued["in_line"] = runs.c.priority.is_not(None)
    return tx.execute(sa.update(runs).where(runs.c.id.in_(free)).values(**queued))
