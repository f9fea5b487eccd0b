"""Questions of remote agents as approvals of their run: asked with the rest, decided by the same people."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from service.runs.approval_requests import ApprovalRequests
from service.runs.attempt import Attempt
from service.runs.proposed_calls import is_decided
from service.runs.tool_execution import decided
from service.store import approvals
from service.store.database import Database, Row, Transaction
from service.types import Run

MARK = "remote_"  # in the ids of their calls, which no model and no pattern gives
LENGTH = 24  # characters of an id's digest
_OF_REMOTE = re.compile(rf"(branch_[0-9]+_)?call_{MARK}[0-9a-f]{{{LENGTH}}}")


class Decisions(NamedTuple):
    """Decisions about the questions of one answer: `pending` ids, or all `decisions` and the `events` of them."""

    pending: list[str]
    decisions: list[dict[str, Any]]
    events: list[dict[str, Any]]


class RemoteQuestions:
    """Asks for approvals, and finds the decisions. One per process."""

    def __init__(self, db: Database, requests: ApprovalRequests) -> None:
        self._db = db
        self._requests = requests

    def rows(self, attempt: Attempt, stored: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Build the rows of new approvals."""
        return [
            self._requests.of_remote(
                attempt.run,
                _call_id(attempt, question),
                question["name"],
                attempt.rails.restored(question["arguments"]),
            )
            for question in stored["questions"]
        ]

    def write(self, tx: Transaction, run: Run, rows: Sequence[dict[str, Any]]) -> None:
        self._requests.write(tx, run, rows)

    def decisions(self, attempt: Attempt, stored: Mapping[str, Any]) -> Decisions:
        """Find the decisions about the questions of a stored answer."""
        found = self._db.query(lambda tx: approvals.of_run(tx, attempt.run.id))
        latest = {row["call_id"]: row for row in found}
        pending, made, events = list[str](), list[dict[str, Any]](), list[dict[str, Any]]()
        for question in stored["questions"]:
            row = latest[_call_id(attempt, question)]
            if not is_decided(row):
                pending.append(row["id"])
                continue
            event = decided(row)
            events.append(event)
            told = {"call_id": question["call_id"], "name": question["name"]}
            made.append({**told, **{name: event[name] for name in ("decision", "arguments", "comment")}})
        return Decisions(pending, made, events)


def is_remote(approval: Row) -> bool:
    """Return whether an approval is about a remote agent's call, whose tools are not known here."""
    return _OF_REMOTE.fullmatch(approval["call_id"]) is not None


def _call_id(attempt: Attempt, question: Mapping[str, Any]) -> str:
    """Return the id of a question's call, which no other call of the run has: of 64 characters at most."""
    short = hashlib.sha256(question["call_id"].encode()).hexdigest()[:LENGTH]
    return f"{attempt.journal.call_prefix}{MARK}{short}"
