"""Steps of a run: their results and the events sent in them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.lists import fitting
from service.store.schema import steps
from service.store.statement import Statement

NOTE = "note"  # kind of a row that only stores events
_INSERT = Statement(InsertOnce(steps))
_OF_RUN = Statement(sa.select(steps).where(steps.c.run_id == sa.bindparam("run_id")).order_by(steps.c.n))
_EVENTS = Statement(
    sa.select(steps.c.events)
    .where(steps.c.run_id == sa.bindparam("run_id"), steps.c.last_seq > sa.bindparam("after"))
    .order_by(steps.c.n)
)


_LISTED = Statement(
    sa.select(*(column for column in steps.c if column.key not in ("reply", "events")))
    .where(steps.c.run_id == sa.bindparam("run_id"))
    .order_by(steps.c.n)
)


def insert(tx: Transaction, step: dict[str, Any], user_id: str) -> None:
    """Insert a step of a user's run once: a commit whose answer was lost may have done it."""
    tx.send(_INSERT, tx.sealed(steps, step, user_id))


def of_run(tx: Transaction, run_id: str) -> list[Row]:
    return tx.rows(_OF_RUN, {"run_id": run_id})


def listed(tx: Transaction, run_id: str) -> list[Row]:
    """Read a run's steps, in order, without their reply and events, which may be large."""
    return tx.rows(_LISTED, {"run_id": run_id})


def first_events(tx: Transaction, run_id: str, after: int) -> list[list[Any]] | None:
    """Read the first events after number `after`; None if all of them can be read at once (`fitting`)."""
    size = sa.func.length(sa.cast(steps.c.events, sa.Text)).label("size")
    later = (steps.c.run_id == run_id, steps.c.last_seq > after)
    found = tx.rows(sa.select(steps.c.n, size).where(*later).order_by(steps.c.n))
    # Most events of the first step may be before `after`: it counts as empty.
    numbers = fitting((row["n"], row["size"] if row is not found[0] else 0) for row in found)
    if len(numbers) == len(found):
        return None
    query = sa.select(steps.c.events).where(*later, steps.c.n.in_(numbers)).order_by(steps.c.n)
    return [event for row in tx.rows(query) for event in row["events"] if event[0] > after]


def events(tx: Transaction, run_id: str, after: int) -> list[list[Any]]:
    """Read `[seq, name, data]` of every stored event after number `after`, in order."""
    return [
        event
        for row in tx.rows(_EVENTS, {"run_id": run_id, "after": after})
        for event in row["events"]
        if event[0] > after
    ]
