"""Approvals of tool calls: questions and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from service.store import scoped
from service.store.database import InsertOnce, Row, Transaction
from service.store.lists import fitting
from service.store.schema import approvals, runs, sessions, users
from service.store.visibility import UNRESTRICTED, Visibility, in_workspace
from service.types import now_ms

_STATUS = {"approve": "approved", "deny": "denied"}
# With the user, input and session of the run, in one query.
_WITH_RUN = (
    sa.select(
        approvals,
        users.c.username,
        runs.c.input,
        runs.c.session_id,
        sessions.c.title.label("session_title"),
    )
    .join(runs, runs.c.id == approvals.c.run_id)
    .join(users, users.c.id == runs.c.user_id)
    .outerjoin(sessions, sessions.c.id == runs.c.session_id)
)


class Decision(NamedTuple):
    """Decision on a tool call. `arguments` replace the model's.

    `id` is random and unique: a transaction that is run again finds its own decision.
    """

    decision: Literal["approve", "deny"]
    comment: str | None
    arguments: dict[str, Any] | None
    id: str


def ask(tx: Transaction, questions: Sequence[dict[str, Any]]) -> None:
    for question in questions:
        row = {**question, "status": "pending", "created_at": now_ms()}
        tx.execute(InsertOnce(approvals), tx.sealed(approvals, row, question["user_id"]))


def of_run(tx: Transaction, run_id: str) -> list[Row]:
    return tx.rows(sa.select(approvals).where(approvals.c.run_id == run_id).order_by(approvals.c.id))


def get(tx: Transaction, approval_id: str, visible: Visibility = UNRESTRICTED) -> Row | None:
    """Find one visible approval, with columns of its run."""
    row = tx.row(_WITH_RUN.where(approvals.c.id == approval_id))
    return row if row is not None and visible.covers(row) else None


def recent(
    tx: Transaction, *, limit: int, before: str | None, status: str | None, visible: Visibility
) -> list[Row]:
    """List visible approvals with columns of their runs, newest first; fewer than `limit` where large: `fitting`."""
    size = sa.func.length(sa.cast(approvals.c.arguments, sa.Text)).label("size")
    query = sa.select(approvals.c.id, size).where(*in_workspace(approvals, visible.workspace_id))
    if visible.user_id is not None:
        query = query.where(approvals.c.user_id == visible.user_id)
    if status is not None:
        query = query.where(approvals.c.status == status)
    if before is not None:
        query = query.where(approvals.c.id < before)
    if visible.scopes:
        found = scoped.newest(tx, approvals, query, limit=limit, visible=visible)
    else:
        page = query.order_by(approvals.c.id.desc()).limit(limit)
        found = tx.rows(page)
    ids = fitting((row["id"], row["size"]) for row in found)
    return tx.rows(_WITH_RUN.where(approvals.c.id.in_(ids)).order_by(approvals.c.id.desc()))


def pending(tx: Transaction, run_id: str) -> list[str]:
    """List ids of the pending approvals of a run, oldest first."""
    query = sa.select(approvals.c.id).order_by(approvals.c.id)
    found = tx.rows(query.where(approvals.c.run_id == run_id, approvals.c.status == "pending"))
    return [row["id"] for row in found]


def lock_run(tx: Transaction, run_id: str) -> None:
    """Serialise decisions about a run: lock it until this transaction ends."""
    tx.row(sa.select(runs.c.id).where(runs.c.id == run_id).with_for_update())


def decide(tx: Transaction, approval: Row, decision: Decision, *, by: str) -> bool:
    """Record a decision. False: another was recorded first.

    A comment is the data of both: of who decides, and of the user of the run.
    """
    approval_id, user_id = approval["id"], approval["user_id"]
    values: dict[str, Any] = {
        "status": _STATUS[decision.decision],
        "decided_by": by,
        "decision_id": decision.id,
        "decided_at": now_ms(),
        **tx.sealed(approvals, {"comment": decision.comment}, user_id, by),
    }
    if decision.arguments is not None:
        values |= tx.sealed(approvals, {"arguments": decision.arguments}, user_id)
    statement = sa.update(approvals).where(approvals.c.id == approval_id, approvals.c.status == "pending")
    if tx.execute(statement.values(**values)) == 1:
        return True
    row = get(tx, approval_id)
    return row is not None and row["decision_id"] == decision.id


def close(tx: Transaction, run_id: str) -> None:
    """Close the pending approvals of a cancelled run."""
    pending = sa.update(approvals).where(approvals.c.run_id == run_id, approvals.c.status == "pending")
    tx.execute(pending.values(status="cancelled", decided_at=now_ms()))
