"""Approvals: human decisions about tool calls, their permissions, and the resumed run."""

from __future__ import annotations

from functools import partial
from typing import Any

from service.audit.record import Action, record
from service.errors import AlreadyDecided, NotFound
from service.store import approvals as rows
from service.store import runs
from service.store.approvals import Decision
from service.store.database import Database, Row, Transaction
from service.store.visibility import visible_to
from service.types import Caller, RunStatus, now_ms, public_fields

_SHOWN = (
    "id run_id user_id username agent session_id session_title input call_id name arguments reason untrusted status "
    "comment decided_by created_at decided_at"
)

_DECIDED = {"approve": Action.APPROVAL_APPROVED, "deny": Action.APPROVAL_DENIED}


def page(db: Database, caller: Caller, **filters: Any) -> list[Row]:
    """List approvals visible to the caller, newest first; `filters`: filters of `store.approvals.recent`."""
    return db.query(partial(rows.recent, visible=visible_to(caller), **filters))


def find(tx: Transaction, caller: Caller, approval_id: str) -> Row:
    """Find an approval visible to the caller. Raises `NotFound`."""
    row = rows.get(tx, approval_id, visible_to(caller))
    if row is None:
        raise NotFound(f"There is no approval {approval_id}.")
    return row


def get(db: Database, caller: Caller, approval_id: str) -> Row:
    """Find an approval visible to the caller, in a transaction of its own. Raises `NotFound`."""
    return db.query(partial(find, caller=caller, approval_id=approval_id))


def decide(tx: Transaction, caller: Caller, approval_id: str, decision: Decision) -> tuple[Row, bool]:
    """Record a decision; return the approval, and whether its run was queued to resume.

    Whether the caller's role may decide is for the door to check. Raises `NotFound` and `AlreadyDecided`.
    """
    row = find(tx, caller, approval_id)
    # Decisions about one run are serialised, so that the last one sees no other pending and resumes the run.
    rows.lock_run(tx, row["run_id"])
    taken = rows.decide(tx, row, decision, by=caller.user_id)
    row = find(tx, caller, approval_id)
    if not taken:
        raise AlreadyDecided(f"This approval is {row['status']} already.")
    told = {"run": row["run_id"], "tool": row["name"], "changed": decision.arguments is not None}
    record(
        tx, _DECIDED[decision.decision], f"approval:{approval_id}", workspace_id=row["workspace_id"], **told
    )
    resumes = not rows.pending(tx, row["run_id"])
    if resumes:
        runs.requeue(tx, row["run_id"], [RunStatus.WAITING_APPROVAL], now_ms())
    return row, resumes


def public(row: Row) -> dict[str, Any]:
    """Return the API's approval object; `input` is the question, shortened as in lists of runs."""
    return public_fields(row, _SHOWN)
