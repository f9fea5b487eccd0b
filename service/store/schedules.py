"""Schedules, and the outcomes of their slots.

A slot is decided under the lock of its schedule, in the transaction that opens its run, and has one row. So it has one
run at most, whatever replicas and clocks do.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from service.errors import TooMany
from service.store import scoped
from service.store.database import InsertOnce, Row, Transaction, clock_ms
from service.store.schema import runs, schedule_slots, schedules
from service.store.visibility import Visibility, in_workspace

MAX_SCHEDULES = 50  # of one user
MAX_COUNTED = 10_000  # slots that are counted by outcome
LAST = 5  # runs, and slots without one, that a schedule shows
ANY_DUE = sa.exists().where(schedules.c.next_at <= clock_ms())
_CLOCK = sa.select(clock_ms().label("now"))
_LISTED = [column for column in schedules.c if column.key != "input"]
_slots = schedule_slots.c


def clock(tx: Transaction) -> int:
    """Return the database's time, by which all processes know what is due."""
    return int(tx.rows(_CLOCK)[0]["now"])


def insert(tx: Transaction, row: dict[str, Any]) -> None:
    """Insert a schedule. Raises `TooMany` where its user has `MAX_SCHEDULES`; concurrent inserts may pass by a few."""
    others = schedules.c.user_id == row["user_id"], schedules.c.id != row["id"]
    ids = sa.select(schedules.c.id).where(*others).order_by(schedules.c.id)
    if tx.row(ids.offset(MAX_SCHEDULES - 1).limit(1)):
        raise TooMany(f"You have {MAX_SCHEDULES} schedules: delete one first.")
    tx.execute(InsertOnce(schedules), tx.sealed(schedules, row, row["user_id"]))


def get(tx: Transaction, schedule_id: str, visible: Visibility, *, lock: bool = False) -> Row | None:
    """Find one schedule that is visible; `lock`: until the transaction ends."""
    query = sa.select(schedules).where(schedules.c.id == schedule_id)
    row = tx.row(query.with_for_update() if lock else query)
    return row if row is not None and visible.covers(row) else None


def recent(tx: Transaction, *, limit: int, before: str | None, visible: Visibility) -> list[Row]:
    """List visible schedules without their inputs, newest first."""
    query = sa.select(*_LISTED).where(*in_workspace(schedules, visible.workspace_id))
    if visible.user_id is not None:
        query = query.where(schedules.c.user_id == visible.user_id)
    if before is not None:
        query = query.where(schedules.c.id < before)
    if visible.scopes:
        return scoped.newest(tx, schedules, query, limit=limit, visible=visible)
    return tx.rows(query.order_by(schedules.c.id.desc()).limit(limit))


def update(tx: Transaction, schedule: Row, changes: Mapping[str, Any]) -> None:
    """Change columns of a schedule."""
    sealed = tx.sealed(schedules, changes, schedule["user_id"])
    tx.execute(sa.update(schedules).where(schedules.c.id == schedule["id"]).values(sealed))


def delete(tx: Transaction, schedule_id: str) -> None:
    """Delete a schedule with the outcomes of its slots; its runs stay."""
    tx.execute(sa.delete(schedules).where(schedules.c.id == schedule_id))


def due(tx: Transaction, after: tuple[int, str], limit: int) -> list[Row]:
    """List schedules with a slot that is due, `next_at` and `id`, by these, after a pair of them."""
    place = schedules.c.next_at, schedules.c.id
    query = sa.select(*place).where(schedules.c.next_at <= clock(tx))
    query = query.where(sa.tuple_(*place) > sa.tuple_(*map(sa.literal, after)))
    return tx.rows(query.order_by(*place).limit(limit))


def take_due(tx: Transaction, schedule: Row) -> int | None:
    """Lock a schedule as it was read, and return the time at which its slots are decided.

    None: nothing is due any more, another process decides, or it was changed since.
    """
    query = sa.select(schedules).where(schedules.c.id == schedule["id"])
    if tx.row(query.with_for_update(skip_locked=True)) != schedule:
        return None
    now = clock(tx)
    return now if schedule["next_at"] is not None and schedule["next_at"] <= now else None


def decided(tx: Transaction, schedule_id: str, slot: int) -> Row | None:
    """Find the outcome of a slot, or of slots of which it was the first."""
    query = sa.select(schedule_slots).where(_slots.schedule_id == schedule_id, _slots.slot == slot)
    return tx.row(query)


def decide(tx: Transaction, row: dict[str, Any]) -> None:
    """Insert the outcome of a slot, or of several; the first that was told stays."""
    tx.execute(InsertOnce(schedule_slots), row)


def last_runs(tx: Transaction, schedule_id: str) -> list[Row]:
    """List the last runs of a schedule, newest first: `slot`, `run_id` and `status`, None once the run is deleted."""
    query = sa.select(_slots.slot, _slots.run_id, runs.c.status).outerjoin(runs, runs.c.id == _slots.run_id)
    of_it = query.where(_slots.schedule_id == schedule_id, _slots.run_id.is_not(None))
    return tx.rows(of_it.order_by(_slots.run_id.desc()).limit(LAST))


def last_without_run(tx: Transaction, schedule_id: str, limit: int = LAST) -> list[Row]:
    """List the last slots of a schedule that made no run, newest first."""
    query = sa.select(schedule_slots).where(_slots.schedule_id == schedule_id, _slots.run_id.is_(None))
    return tx.rows(query.order_by(_slots.slot.desc()).limit(limit))


def outcomes(tx: Transaction, since: int) -> dict[str, int]:
    """Count slots that were decided from `since` (ms) on, by outcome; of the last `MAX_COUNTED`."""
    decided = sa.select(_slots.outcome).where(_slots.at >= since).order_by(_slots.at.desc())
    last = decided.limit(MAX_COUNTED).subquery()
    query = sa.select(last.c.outcome, sa.func.count().label("count")).group_by(last.c.outcome)
    return {row["outcome"]: row["count"] for row in tx.rows(query)}


def expire(tx: Transaction, before: int, limit: int) -> int:
    """Delete at most `limit` outcomes from before `before` (ms); return how many."""
    key = _slots.schedule_id, _slots.slot
    old = sa.select(*key).where(_slots.at < before).order_by(_slots.at).limit(limit)
    old = old.with_for_update(skip_locked=True)
    return tx.execute(sa.delete(schedule_slots).where(sa.tuple_(*key).in_(old)))
