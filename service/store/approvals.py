"""Approvals of tool calls: questions and decisions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import sqlalchemy as sa

from service.store import scoped
from service.store.database import InsertOnce, Row, Transaction
from service.store.lists import fitting
from service.store.schema import EXPIRING, approvals, runs, sessions, users
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

    `id` is random and unique: a transaction that is run again finds its own decision. `digest`: of the call that is
    decided about; None: any call.
    """

    decision: Literal["approve", "deny"]
    comment: str | None
    arguments: dict[str, Any] | None
    id: str
    digest: str | None = None


def ask(tx: Transaction, questions: Sequence[dict[str, Any]]) -> None:
    for question in questions:
        row = {**question, "status": "pending", "created_at": now_ms()}
        tx.execute(InsertOnce(approvals), tx.sealed(approvals, row, question["user_id"]))


def of_run(tx: Transaction, run_id: str) -> list[Row]:
    return tx.rows(sa.select(approvals).where(approvals.c.run_id == run_id).order_by(approvals.c.id))


def any_before(tx: Transaction, run_id: str, approval_id: str) -> bool:
    """Return whether a run has asked for an approval before this one, which may be there already."""
    before = sa.select(approvals.c.id).where(approvals.c.run_id == run_id, approvals.c.id < approval_id)
    return tx.row(before.limit(1)) is not None


def get(tx: Transaction, approval_id: str, visible: Visibility = UNRESTRICTED) -> Row | None:
    """Find one visible approval, with columns of its run."""
    row = tx.row(_WITH_RUN.where(approvals.c.id == approval_id))
    return row if row is not None and visible.covers(row) else None


def recent(
    tx: Transaction, *, limit: int, before: str | None, status: str | None, visible: Visibility
) -> list[Row]:
    """List visible approvals with columns of their runs, newest first; fewer than `limit` where large: `fitting`."""
    texts = (sa.cast(approvals.c.arguments, sa.Text), sa.func.coalesce(approvals.c.explanation, ""))
    size = (sa.func.length(texts[0]) + sa.func.length(texts[1])).label("size")
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


def expired(tx: Transaction, limit: int) -> list[str]:
    """List ids of approvals that expire, at most `limit`."""
    query = sa.select(approvals.c.id).where(expired_at(now_ms())).order_by(approvals.c.expires_at)
    return [row["id"] for row in tx.rows(query.limit(limit))]


def expired_at(now: Any) -> sa.ColumnElement[bool]:
    """Condition for approvals that nobody decided about before a time in ms."""
    return sa.and_(sa.text(EXPIRING), approvals.c.expires_at <= now)


def decide(tx: Transaction, approval: Row, decision: Decision, *, by: str | None) -> bool:
    """Record a decision; `by` None: by its expiry. False: another was recorded first, or it is late or early.

    A comment is the data of both: of who decides, and of the user of the run.
    """
    approval_id, user_id, now = approval["id"], approval["user_id"], now_ms()
    owners = [user_id] if by is None else [user_id, by]
    values: dict[str, Any] = {
        "status": _STATUS[decision.decision],
        "decided_by": by,
        "decision_id": decision.id,
        "decided_at": now,
        **tx.sealed(approvals, {"comment": decision.comment}, *owners),
    }
    if decision.arguments is not None:
        values |= tx.sealed(approvals, {"arguments": decision.arguments}, user_id)
    is_over = sa.func.coalesce(approvals.c.expires_at <= now, sa.false())
    statement = sa.update(approvals).where(
        approvals.c.id == approval_id,
        approvals.c.status == "pending",
        is_over if by is None else sa.not_(is_over),
    )
    if tx.execute(statement.values(**values)) == 1:
        return True
    row = get(tx, approval_id)
    return row is not None and row["decision_id"] == decision.id


def close(tx: Transaction, run_id: str) -> None:
    """Close the pending approvals of a cancelled run."""
    pending = sa.update(approvals).where(approvals.c.run_id == run_id, approvals.c.status == "pending")
    tx.execute(pending.values(status="cancelled", decided_at=now_ms()))
