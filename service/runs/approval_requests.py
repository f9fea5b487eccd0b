"""Requests for approval: a run asks people about its tool calls, within a time, by event and by webhook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from service.approvals import digest
from service.ids import new_id
from service.runs.proposed_calls import Call
from service.store import approvals
from service.store.database import Transaction
from service.types import Run, now_ms, rfc3339
from service.webhooks import Webhooks

MAX_EXPLANATION = 1_000  # characters of the model's words before a call


class ApprovalRequests:
    """Requests for approval, one per process. Unanswered ones expire after `seconds`; 0: never.

    `escalated` is told the agent of a run that asks for the first time.
    """

    def __init__(
        self, webhooks: Webhooks, seconds: int, escalated: Callable[[str], object] = lambda agent: None
    ) -> None:
        self._webhooks = webhooks
        self._seconds = seconds
        self._escalated = escalated

    def about(self, run: Run, call: Call, reason: str) -> dict[str, Any]:
        """Build the row of a new approval; `reason`: `policy`, `untrusted` or `unknown`."""
        row = self._row(run, call.id, call.name, call.arguments, reason)
        return {**row, "explanation": call.explanation[:MAX_EXPLANATION] or None, "untrusted": call.marks()}

    def of_remote(self, run: Run, call_id: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Build the row of a new approval of a remote agent's call, all of which is untrusted."""
        row = self._row(run, call_id, name, arguments, "policy")
        return {**row, "explanation": None, "untrusted": {"sources": ["remote"], "pointers": []}}

    def _row(
        self, run: Run, call_id: str, name: str, arguments: dict[str, Any], reason: str
    ) -> dict[str, Any]:
        return {
            "id": new_id("apr"),
            "run_id": run.id,
            "workspace_id": run.workspace_id,
            "user_id": run.user_id,
            "agent": run.agent,
            "call_id": call_id,
            "name": name,
            "arguments": arguments,
            "reason": reason,
            "expires_at": now_ms() + self._seconds * 1000 if self._seconds else None,
        }

    def write(self, tx: Transaction, run: Run, questions: Sequence[dict[str, Any]]) -> None:
        """Write new approvals with their webhooks, in the transaction that suspends the run."""
        if questions and not approvals.any_before(tx, run.id, min(row["id"] for row in questions)):
            tx.after_commit(partial(self._escalated, run.agent))
        approvals.ask(tx, questions)
        self._webhooks.approvals_required(tx, run, [row["id"] for row in questions])


def required(row: dict[str, Any]) -> dict[str, Any]:
    """Build the data of the `approval.required` event."""
    return {
        "approval_id": row["id"],
        **{name: row[name] for name in ("name", "arguments", "reason", "untrusted")},
        "digest": digest(row["name"], row["arguments"]),
        "expires_at": rfc3339(row["expires_at"]),
    }
