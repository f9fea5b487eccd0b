"""A person's decisions about tool calls: who may take them, and what they set going."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

from service.errors import AlreadyDecided, Forbidden, NotFound
from service.store import approvals as rows
from service.store import runs
from service.store.database import Database, Row, Transaction
from service.store.visibility import visible_to
from service.types import Caller, RunStatus, now_ms, rfc3339

_STATUS = {"approve": "approved", "deny": "denied"}


class Decision(NamedTuple):
    """A person's answer to a question. `arguments` replace those the model chose; `id` is random, for this one."""

    decision: Literal["approve", "deny"]
    comment: str | None
    arguments: dict[str, Any] | None
    id: str


def page(db: Database, caller: Caller, **wanted: Any) -> list[Row]:
    """List approvals that the caller may see, newest first; `wanted` as `store.approvals.recent` takes it."""
    return db.query(partial(rows.recent, visible=visible_to(caller), **wanted))


def of(tx: Transaction, caller: Caller, approval_id: str) -> Row:
    """Find an approval that the caller may see. Raises `NotFound`."""
    row = rows.get(tx, approval_id, visible_to(caller))
    if row is None:
        raise NotFound(f"There is no approval {approval_id}.")
    return row


def decidable(tx: Transaction, caller: Caller, approval_id: str) -> Row:
    """Find an approval that the caller may decide. Raises `NotFound`, and `Forbidden` for a plain user."""
    row = of(tx, caller, approval_id)
    if caller.role == "user":
        raise Forbidden("Operators decide; you can see what waits.")
    return row


def find_decidable(db: Database, caller: Caller, approval_id: str) -> Row:
    """`decidable` in a transaction of its own."""
    return db.query(partial(decidable, caller=caller, approval_id=approval_id))


def decide(tx: Transaction, caller: Caller, approval_id: str, said: Decision) -> tuple[Row, bool]:
    """The approval as it is now, and whether its run can go on: it is in the queue then.

    Raises `NotFound`, `Forbidden` for a plain user, and `AlreadyDecided`.
    """
    row = decidable(tx, caller, approval_id)
    # Two decisions about one run come one after the other, so that the last one sees that it is the last.
    rows.lock_run(tx, row["run_id"])
    taken = rows.decide(
        tx,
        approval_id,
        status=_STATUS[said.decision],
        by=caller.user_id,
        decision_id=said.id,
        comment=said.comment,
        arguments=said.arguments,
    )
    row = of(tx, caller, approval_id)
    if not taken:
        raise AlreadyDecided(f"This approval is {row['status']} already.")
    goes_on = not rows.pending(tx, row["run_id"])
    if goes_on:
        runs.requeue(tx, row["run_id"], [RunStatus.WAITING_APPROVAL], now_ms())
    return row, goes_on


def public(row: Row) -> dict[str, Any]:
    """An approval as the API shows it; `input` is the question, cut as in lists of runs."""
    plain = (
        "id",
        "run_id",
        "user_id",
        "username",
        "agent",
        "session_id",
        "session_title",
        "input",
        "call_id",
        "name",
        "arguments",
        "reason",
        "status",
        "comment",
    )
    times = {name: rfc3339(row[name]) for name in ("created_at", "decided_at")}
    return {name: row[name] for name in plain} | {"decided_by": row["decided_by"]} | times
