"""Approvals: decisions about tool calls by people or by time, their permissions, and the resumed run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson

from service.audit.record import Action, record
from service.errors import AlreadyDecided, DigestMismatch, NotFound, OwnApproval
from service.store import approvals as rows
from service.store import runs
from service.store.approvals import Decision
from service.store.database import Database, Row, Transaction
from service.store.visibility import visible_to
from service.types import Caller, RunStatus, now_ms, public_fields

_SHOWN = (
    "id run_id user_id username agent session_id session_title input explanation call_id name arguments reason "
    "untrusted status comment decided_by created_at expires_at decided_at"
)
EXPIRED = "Nobody decided in time."
EXPIRED_BATCH = 100  # approvals that one sweep lets expire

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


def decide(
    tx: Transaction, caller: Caller, approval_id: str, decision: Decision, *, by_others: bool = False
) -> tuple[Row, bool]:
    """Record a decision; return the approval, and whether its run was queued to resume.

    Whether the caller's role may decide is for the door to check; `by_others`: the user of the run may not. Raises
    `NotFound`, `OwnApproval`, `DigestMismatch` and `AlreadyDecided`.
    """
    row = find(tx, caller, approval_id)
    if by_others and row["user_id"] == caller.user_id:
        raise OwnApproval("Another operator has to decide about the calls of your own runs.")
    # Decisions about one run are serialised, so that the last one sees no other pending and resumes the run.
    rows.lock_run(tx, row["run_id"])
    if row["status"] == "pending" and decision.digest not in (None, digest(row["name"], row["arguments"])):
        raise DigestMismatch("The digest is not that of this call: look at the call again.")
    taken = rows.decide(tx, row, decision, by=caller.user_id)
    row = find(tx, caller, approval_id)
    if not taken:
        expired = row["status"] == "pending"
        raise AlreadyDecided(
            "This approval has expired." if expired else f"This approval is {row['status']} already."
        )
    return row, _decided(tx, row, decision)


def expire(db: Database, told: Callable[[str, str, float], object] = lambda *about: None) -> None:
    """Deny calls that nobody decided about in time. Raises `DatabaseUnavailable`.

    `told`: agent, `expired`, and the seconds since the request of each.
    """
    for approval_id in db.query(partial(rows.expired, limit=EXPIRED_BATCH)):
        db.transact(partial(_expire, approval_id=approval_id, told=told))


def waited(row: Row) -> float:
    """Return the seconds from the request of an approval to its decision."""
    ms: int = (row["decided_at"] or now_ms()) - row["created_at"]
    return ms / 1000


def _expire(tx: Transaction, approval_id: str, told: Callable[[str, str, float], object]) -> None:
    row = rows.get(tx, approval_id)
    if row is None:  # deleted meanwhile, with its run
        return
    rows.lock_run(tx, row["run_id"])
    decision = Decision("deny", EXPIRED, None, tx.id("dec"))
    if rows.decide(tx, row, decision, by=None):
        _decided(tx, row, decision)
        tx.after_commit(partial(told, row["agent"], "expired", waited(row)))


def _decided(tx: Transaction, row: Row, decision: Decision) -> bool:
    """Audit a decision; queue the run if no other is pending, and return whether it was."""
    told = {"run": row["run_id"], "tool": row["name"], "changed": decision.arguments is not None}
    record(tx, _DECIDED[decision.decision], f"approval:{row['id']}", workspace_id=row["workspace_id"], **told)
    resumes = not rows.pending(tx, row["run_id"])
    if resumes:
        runs.requeue(tx, row["run_id"], [RunStatus.WAITING_APPROVAL], now_ms())
    return resumes


def digest(name: str, arguments: Mapping[str, Any]) -> str:
    """Return the digest of a tool call, `sha256:…`: equal for calls with the same name and arguments only."""
    call = orjson.dumps({"arguments": arguments, "name": name}, option=orjson.OPT_SORT_KEYS)
    return f"sha256:{hashlib.sha256(call).hexdigest()}"


def public(row: Row) -> dict[str, Any]:
    """Return the API's approval object; `input` is the question, shortened as in lists of runs."""
    return {**public_fields(row, _SHOWN), "digest": digest(row["name"], row["arguments"])}
