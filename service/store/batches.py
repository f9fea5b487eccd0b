"""Rows of batches, and of the model steps that wait to be answered in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import batch_items, batches, runs
from service.types import RunStatus, now_ms

WAITING, SENT, DONE, FAILED = "waiting", "sent", "done", "failed"
_INSERT = InsertOnce(batch_items)


def item_id(run_id: str, step: int) -> str:
    """What a step is called at the provider."""
    return f"{run_id}-{step}"


def add(tx: Transaction, run_id: str, step: int, request: dict[str, Any]) -> None:
    """A step that waits from now on."""
    new = {"batch_id": None, "reply": None, "state": WAITING, "created_at": now_ms()}
    row = {"id": item_id(run_id, step), "run_id": run_id, "step": step, "request": request, **new}
    tx.execute(_INSERT, row)


def get(tx: Transaction, run_id: str, step: int) -> Row | None:
    return tx.row(sa.select(batch_items).where(batch_items.c.id == item_id(run_id, step)))


def remove(tx: Transaction, name: str) -> None:
    tx.execute(sa.delete(batch_items).where(batch_items.c.id == name))


def waiting(tx: Transaction) -> tuple[int, int]:
    """How many steps wait, and since when (ms) the first of them."""
    query = sa.select(sa.func.count().label("count"), sa.func.min(batch_items.c.created_at).label("since"))
    row = tx.row(query.where(batch_items.c.state == WAITING))
    return (row["count"], row["since"] or 0) if row else (0, 0)


def collect(tx: Transaction, batch_id: str, limit: int, next_at: int) -> list[Row]:
    """Put the steps that wait longest into a new batch, which is about to be sent. Each step goes into one only.

    `batch_id` is new with each batch: of a transaction that runs twice the second run finds its own steps.
    """
    if before := tx.rows(sa.select(batch_items).where(batch_items.c.batch_id == batch_id)):
        return before
    chosen = (
        sa.select(batch_items.c.id)
        .where(batch_items.c.state == WAITING)
        .order_by(batch_items.c.created_at)
        .limit(limit)
        .with_for_update(skip_locked=True)  # else another batch takes it
        .cte("chosen")
    )
    taken = tx.rows(
        sa.update(batch_items)
        .where(batch_items.c.id.in_(sa.select(chosen.c.id)), batch_items.c.state == WAITING)
        .values(state=SENT, batch_id=batch_id)
        .returning(batch_items)
    )
    if taken:
        new = {"id": batch_id, "upstream_id": None, "size": len(taken)}
        tx.execute(InsertOnce(batches), {**new, "next_at": next_at, "created_at": now_ms()})
    return taken


def sent(tx: Transaction, batch_id: str, upstream_id: str, next_at: int) -> None:
    """The provider has it, under this id."""
    values = {"upstream_id": upstream_id, "next_at": next_at}
    tx.execute(sa.update(batches).where(batches.c.id == batch_id).values(**values))


def due(tx: Transaction, limit: int = 20) -> list[Row]:
    """Batches to be looked at now."""
    query = sa.select(batches).where(batches.c.next_at <= now_ms()).order_by(batches.c.next_at)
    return tx.rows(query.limit(limit))


def claim(tx: Transaction, batch: Row, next_at: int) -> bool:
    """Be the one who looks at it this time. False: somebody else is."""
    mine = sa.update(batches).where(batches.c.id == batch["id"], batches.c.next_at == batch["next_at"])
    return tx.execute(mine.values(next_at=next_at)) == 1


def upstream_ids(tx: Transaction) -> set[str]:
    rows = tx.rows(sa.select(batches.c.upstream_id).where(batches.c.upstream_id.is_not(None)))
    return {row["upstream_id"] for row in rows}


def answered(tx: Transaction, name: str, reply: dict[str, Any] | None) -> None:
    """What the provider says to one step; None: nothing, so it is asked again by itself."""
    _move(tx, batch_items.c.id == name, state=FAILED if reply is None else DONE, reply=reply)


def release(tx: Transaction, batch_id: str) -> None:
    """The batch never reached the provider: its steps wait again."""
    _move(tx, batch_items.c.batch_id == batch_id, state=WAITING, batch_id=None)
    tx.execute(sa.delete(batches).where(batches.c.id == batch_id))


def close(tx: Transaction, batch_id: str) -> None:
    """The batch is over: what it left unanswered is asked again, one by one."""
    _move(tx, batch_items.c.batch_id == batch_id, state=FAILED)
    tx.execute(sa.delete(batches).where(batches.c.id == batch_id))


def wake(tx: Transaction) -> int:
    """Runs whose step is answered are to be taken up; how many."""
    over = sa.select(batch_items.c.run_id).where(batch_items.c.state.in_((DONE, FAILED)))
    asleep = sa.select(runs.c.id).where(
        runs.c.id.in_(over), runs.c.status == RunStatus.QUEUED, runs.c.wake_at.is_(None)
    )
    free = asleep.order_by(runs.c.id).with_for_update(skip_locked=True)  # the others next time
    return tx.execute(sa.update(runs).where(runs.c.id.in_(free)).values(wake_at=now_ms()))


def unwanted(tx: Transaction, limit: int = 100) -> list[Row]:
    """Steps of runs that have ended, such as cancelled ones, which are not at the provider."""
    query = sa.select(batch_items).join(runs, runs.c.id == batch_items.c.run_id)
    return tx.rows(query.where(runs.c.finished_at.is_not(None), batch_items.c.state != SENT).limit(limit))


def of_batch(tx: Transaction, batch_id: str) -> Sequence[str]:
    rows = tx.rows(sa.select(batch_items.c.id).where(batch_items.c.batch_id == batch_id))
    return [row["id"] for row in rows]


def _move(tx: Transaction, which: sa.ColumnElement[bool], **values: Any) -> None:
    """Only what is at the provider moves: a second telling of the same changes nothing."""
    moving = sa.select(batch_items.c.id).where(which, batch_items.c.state == SENT)
    locked = moving.order_by(batch_items.c.id).with_for_update()
    tx.execute(sa.update(batch_items).where(batch_items.c.id.in_(locked)).values(**values))
