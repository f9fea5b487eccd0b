"""Feedback of users on their runs; deleted with the run."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import feedback, runs


def give(tx: Transaction, run_id: str, score: int, comment: str | None, now: int) -> Row | None:
    """Store feedback, replacing any earlier. None: the run is gone."""
    # Locked, so that the run is not deleted meanwhile.
    run = sa.select(runs.c.user_id).where(runs.c.id == run_id).with_for_update(read=True, key_share=True)
    if (found := tx.row(run)) is None:
        return None
    given: dict[str, Any] = {"score": score, "comment": comment, "updated_at": now}
    values = tx.sealed(feedback, given, found["user_id"])
    tx.execute(InsertOnce(feedback), {"run_id": run_id, "created_at": now, **values})
    tx.execute(sa.update(feedback).where(feedback.c.run_id == run_id).values(**values))
    return of_run(tx, run_id)


def of_run(tx: Transaction, run_id: str) -> Row | None:
    return tx.row(sa.select(feedback).where(feedback.c.run_id == run_id))


def recent(tx: Transaction, *, limit: int, agent: str | None, score: int | None) -> list[Row]:
    """List feedback, newest runs first, with their `agent`."""
    query = sa.select(feedback, runs.c.agent).join(runs, runs.c.id == feedback.c.run_id)
    if agent is not None:
        query = query.where(runs.c.agent == agent)
    if score is not None:
        query = query.where(feedback.c.score == score)
    query = query.order_by(feedback.c.run_id.desc()).limit(limit)
    return tx.rows(query)
