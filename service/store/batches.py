"""Message batches at the provider, and the model steps that wait for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.store.agent_stops import stopped
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import batch_items, batches, runs
from service.types import Run, RunStatus, now_ms

WAITING, SENT, DONE, FAILED = "waiting", "sent", "done", "failed"
_INSERT = InsertOnce(batch_items)
# Those of a stopped agent stay; so do their holds.
_TO_SEND = sa.and_(
    batch_items.c.state == WAITING,
    ~sa.exists().where(runs.c.id == batch_items.c.run_id, stopped(runs.c.agent)),
)
ANY = sa.or_(sa.exists().select_from(batch_items), sa.exists().select_from(batches))


def item_id(run_id: str, step: int) -> str:
    """Custom id of a step at the provider."""
    return f"{run_id}-{step}"


def add(tx: Transaction, run: Run, step: int, request: dict[str, Any]) -> None:
    """Queue a step of a run for the next batch."""
    initial = {"batch_id": None, "reply": None, "state": WAITING, "created_at": now_ms()}
    row = {"id": item_id(run.id, step), "run_id": run.id, "step": step, "request": request, **initial}
    tx.execute(_INSERT, tx.sealed(batch_items, row, run.user_id))


def get(tx: Transaction, run_id: str, step: int) -> Row | None:
    return tx.row(sa.select(batch_items).where(batch_items.c.id == item_id(run_id, step)))


def remove(tx: Transaction, name: str) -> None:
    tx.execute(sa.delete(batch_items).where(batch_items.c.id == name))


def waiting(tx: Transaction) -> tuple[int, int]:
    """Count steps that may be sent, with the time (ms) of the first."""
    query = sa.select(sa.func.count().label("count"), sa.func.min(batch_items.c.created_at).label("since"))
    row = tx.row(query.where(_TO_SEND))
    return (row["count"], row["since"] or 0) if row else (0, 0)


def collect(tx: Transaction, batch_id: str, limit: int, next_at: int) -> list[Row]:
    """Assign the oldest waiting steps to a new batch that is about to be sent; each step to one batch only.

    `batch_id` is unique: a transaction that is run again finds its own steps.
    """
    if collected := tx.rows(sa.select(batch_items).where(batch_items.c.batch_id == batch_id)):
        return collected
    chosen = (
        sa.select(batch_items.c.id)
        .where(_TO_SEND)
        .order_by(batch_items.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)  # another batch collects the locked ones
        .cte("chosen")
    )
    taken = tx.rows(
        sa.update(batch_items)
        .where(batch_items.c.id.in_(sa.select(chosen.c.id)), batch_items.c.state == WAITING)
        .values(state=SENT, batch_id=batch_id)
        .returning(batch_items)
    )
    if taken:
        batch = {"id": batch_id, "upstream_id": None, "size": len(taken)}
        tx.execute(InsertOnce(batches), {**batch, "next_at": next_at, "created_at": now_ms()})
    return taken


def any_stopped(tx: Transaction, batch_id: str) -> bool:
    """Return whether the agent of one of a batch's steps is stopped."""
    steps = sa.select(batch_items.c.id).join(runs, runs.c.id == batch_items.c.run_id)
    return tx.row(steps.where(batch_items.c.batch_id == batch_id, stopped(runs.c.agent)).limit(1)) is not None


def sent(tx: Transaction, batch_id: str, upstream_id: str, next_at: int) -> None:
    """Store the provider's id of a sent batch."""
    values = {"upstream_id": upstream_id, "next_at": next_at}
    tx.execute(sa.update(batches).where(batches.c.id == batch_id).values(**values))


def due(tx: Transaction, limit: int = 20) -> list[Row]:
    """List batches that are due to be polled."""
    query = sa.select(batches).where(batches.c.next_at <= now_ms()).order_by(batches.c.next_at)
    return tx.rows(query.limit(limit))


def claim(tx: Transaction, batch: Row, next_at: int) -> bool:
    """Claim a batch for one poll. False: another worker has it."""
    unclaimed = sa.update(batches).where(batches.c.id == batch["id"], batches.c.next_at == batch["next_at"])
    if tx.execute(unclaimed.values(next_at=next_at)) == 1:
        return True
    # A retry after a commit whose answer was lost finds its own time. Another worker that claims in the same
    # millisecond polls too: a repeated report changes nothing.
    row = tx.row(sa.select(batches.c.next_at).where(batches.c.id == batch["id"]))
    return row is not None and row["next_at"] == next_at


def upstream_ids(tx: Transaction) -> set[str]:
    rows = tx.rows(sa.select(batches.c.upstream_id).where(batches.c.upstream_id.is_not(None)))
    return {row["upstream_id"] for row in rows}


def store_reply(tx: Transaction, name: str, reply: dict[str, Any] | None) -> None:
    """Store the provider's reply to a step; None: it failed, so the step is called again on its own."""
    query = sa.select(runs.c.user_id).join(batch_items, batch_items.c.run_id == runs.c.id)
    item = tx.row(query.where(batch_items.c.id == name))
    if item is not None:
        sealed = tx.sealed(batch_items, {"reply": reply}, item["user_id"])
        _update_sent(tx, batch_items.c.id == name, state=FAILED if reply is None else DONE, **sealed)


def release(tx: Transaction, batch_id: str) -> None:
    """Delete a batch that never reached the provider; its steps wait again."""
    _update_sent(tx, batch_items.c.batch_id == batch_id, state=WAITING, batch_id=None)
    tx.execute(sa.delete(batches).where(batches.c.id == batch_id))


def close(tx: Transaction, batch_id: str) -> None:
    """Delete a batch that is over; its unanswered steps are called again, one by one."""
    _update_sent(tx, batch_items.c.batch_id == batch_id, state=FAILED)
    tx.execute(sa.delete(batches).where(batches.c.id == batch_id))


def wake(tx: Transaction) -> int:
    """Wake the queued runs whose step is answered, each in line for its next turn; return how many."""
    answered_runs = sa.select(batch_items.c.run_id).where(batch_items.c.state.in_((DONE, FAILED)))
    asleep = sa.select(runs.c.id).where(
        runs.c.id.in_(answered_runs), runs.c.status == RunStatus.QUEUED, runs.c.wake_at.is_(None)
    )
    free = asleep.order_by(runs.c.id).with_for_update(skip_locked=True)  # the others next time
    return tx.execute(sa.update(runs).where(runs.c.id.in_(free)).values(wake_at=now_ms(), in_line=True))


def of_ended_runs(tx: Transaction, limit: int = 100) -> list[Row]:
    """List steps of ended runs, such as cancelled ones, that are not at the provider."""
    query = sa.select(batch_items).join(runs, runs.c.id == batch_items.c.run_id)
    return tx.rows(query.where(runs.c.finished_at.is_not(None), batch_items.c.state != SENT).limit(limit))


def of_batch(tx: Transaction, batch_id: str) -> Sequence[str]:
    rows = tx.rows(sa.select(batch_items.c.id).where(batch_items.c.batch_id == batch_id))
    return [row["id"] for row in rows]


def _update_sent(tx: Transaction, condition: sa.ColumnElement[bool], **values: Any) -> None:
    """Update steps that are at the provider: a repeated report changes nothing."""
    sent_items = sa.select(batch_items.c.id).where(condition, batch_items.c.state == SENT)
    locked = sent_items.order_by(batch_items.c.id).with_for_update()
    tx.execute(sa.update(batch_items).where(batch_items.c.id.in_(locked)).values(**values))
