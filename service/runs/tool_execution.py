"""Tool calls within a run: policy, approval, claim, call, store.

An idempotent tool may be called again after a crash, so it needs no claim. Any other call is claimed in the database
before it is made and reported after: a call that is claimed but not reported, or that timed out, is `unknown`, and a
person decides whether it is made again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Events
from service.audit.record import Action, Result, record
from service.errors import AgentStopped, RunCancelled, RunTimeout
from service.ids import new_id
from service.llm.client import ModelReply
from service.runs.journal import Journal
from service.runs.journal_codec import decode_result, encode_result
from service.runs.slots import HandedOver, Handle
from service.store import approvals, tool_calls
from service.store.database import Database, Row, Transaction
from service.tools import ToolContext, ToolResult, ToolRunner
from service.tools.policy import Approval, ProposedCall, policy
from service.types import Block, Event, Run
from service.usage.rate_limits import SharedRateLimit


class WaitsForApproval(Exception):
    """Raised when a run waits for decisions about `approvals` (ids); no worker holds it until then."""

    def __init__(self, approvals: Sequence[str]) -> None:
        super().__init__()
        self.approvals = approvals


class ToolExecution:
    """Calls an agent's tools for its runs."""

    def __init__(self, db: Database, runner: ToolRunner, rate: SharedRateLimit) -> None:
        self._db = db
        self._runner = runner
        self._rate = rate

    def use(
        self,
        agent: AgentDefinition,
        run: Run,
        journal: Journal,
        handle: Handle,
        started: dict[str, Any],
        reply: ModelReply,
    ) -> Events[list[ToolResult]]:
        """Make the calls in order; return one result per call.

        Raises `WaitsForApproval`, `AgentStopped`, or why the run must stop; the calls left are unclaimed then.
        """
        calls, questions = self._calls(agent, run, reply)
        ids = {call.id for call in calls}
        for row in questions:
            if row["call_id"] in ids and _is_decided(row):
                journal.publish_after_commit(Event.APPROVAL_DECIDED, _decided(row))
        pending = [row["id"] for row in questions if row["status"] == "pending"]
        yield from _ask_first(run, journal, started, calls, pending)
        yield from journal.commit(lambda tx: _claim(tx, run, started["step"], calls))
        yield from journal.publish(Event.STEP_STARTED, started)
        results = []
        for number, call in enumerate(calls):
            try:
                handle.check()
                called = {"call_id": call.id, "name": call.name, "arguments": call.arguments}
                yield from journal.publish(Event.TOOL_CALLED, called)
                result = self._result(agent, run, journal, handle, call)
            except (AgentStopped, HandedOver, RunCancelled, RunTimeout):
                journal.write_with_next(partial(_unclaim, run=run, calls=calls[number:]))
                raise
            if result.timed_out and not agent.tools[call.name].idempotent:
                journal.write_with_next(partial(_unclaim, run=run, calls=calls[number + 1 :]))
                handle.check()  # a run past its own deadline ends here
                yield from _suspend(journal, [_question(run, call, "unknown")], pending)
            results.append(result)
            journal.publish_after_commit(
                Event.TOOL_FINISHED,
                {"call_id": call.id, "ok": result.ok, "ms": round(result.ms), "preview": result.preview},
            )
        return results

    def claimed(self, run: Run) -> Mapping[str, int]:
        """Return the step of every call that an attempt at the run has claimed, by call id."""
        claims = self._db.query(lambda tx: tool_calls.of_run(tx, run.id))
        return {call_id: row["step"] for call_id, row in claims.items()}

    def _calls(self, agent: AgentDefinition, run: Run, reply: ModelReply) -> tuple[list[_Call], list[Row]]:
        """Return the reply's calls, and every approval of this run, oldest first."""
        claims: dict[str, Row] = {}
        questions: list[Row] = []
        if run.attempt > 1:  # a first attempt has no claims or approvals
            claims, questions = self._db.query(
                lambda tx: (tool_calls.of_run(tx, run.id), approvals.of_run(tx, run.id))
            )
        latest = {row["call_id"]: row for row in questions}
        calls = [
            _Call(use, agent, use["id"] not in reply.unreadable, claims.get(use["id"]), latest.get(use["id"]))
            for use in reply.tool_uses
        ]
        return calls, questions

    def _result(
        self, agent: AgentDefinition, run: Run, journal: Journal, handle: Handle, call: _Call
    ) -> ToolResult:
        if call.verdict.action == "deny":
            return ToolResult.failed(call.verdict.reason)
        if call.result is not None:
            return call.result
        tool = agent.tools[call.name]
        context = ToolContext(run.id, run.user_id, agent.id, call.id, handle.deadline, agent.knowledge)
        window = self._rate.take(run.user_id)
        if window is not None and window.remaining < 0:
            result = ToolResult.failed(
                f"Too many tool calls. Try again in {math.ceil(window.reset)} seconds."
            )
        else:
            journal.check_owner()  # a worker suspended beyond its lease, or a stopped agent, must call nothing
            result = self._runner.call(tool, call.arguments, context)
        if not tool.idempotent:
            self._report(run, call, result)
        return result

    def _report(self, run: Run, call: _Call, result: ToolResult) -> None:
        """Write the result at once: until then, the call would be `unknown` to the next worker."""
        status = "done" if result.ok else "failed"

        def report(tx: Transaction) -> None:
            if call.audited:
                outcome: Result = "unknown" if result.timed_out else "ok" if result.ok else "failed"
                record(tx, Action.TOOL_FINISHED, f"run:{run.id}", result=outcome, **call.told)
            if result.timed_out:
                tool_calls.report_unknown(tx, run.id, call.id)
            else:
                tool_calls.report(tx, run, call.id, status, encode_result(result))

        self._db.transact(report, patience=30)


class _Call:
    """Tool call of a reply, with an earlier attempt's claim and the latest approval about it.

    `arguments` are those of the approval, where they may have been changed. `former`, `result`: claim and result of an
    earlier attempt.
    """

    def __init__(
        self, use: Block, agent: AgentDefinition, readable: bool, claim: Row | None, question: Row | None
    ) -> None:
        self.id: str = use["id"]
        self.name: str = use["name"]
        self.former = claim
        self.is_asked = question is not None and question["status"] == "pending"
        decision = question if question is not None and _is_decided(question) else None
        self.allowed_by: str | None = decision["id"] if decision is not None else None
        self.arguments: dict[str, Any] = dict(decision["arguments"] if decision is not None else use["input"])
        finished = claim is not None and claim["status"] in ("done", "failed")
        self.result = decode_result(claim["result"]) if claim is not None and finished else None
        tool = agent.tools.get(self.name)
        self.verdict = policy(
            ProposedCall(
                name=self.name,
                tool=tool,
                readable=readable,
                needs_approval=self.name in agent.approvals,
                made="no" if claim is None else "yes" if finished else "unknown",
                approval=_approval(decision, claim) if decision is not None else None,
            )
        )
        self.to_claim = (
            self.verdict.action == "allow"
            and self.result is None
            and tool is not None
            and not tool.idempotent
        )
        # A call that changes something: not every call that must not be repeated does.
        self.audited = (
            self.verdict.action == "allow"
            and self.result is None
            and tool is not None
            and (tool.changes or self.name in agent.approvals)
        )
        self.told = {"call": self.id, "tool": self.name, "agent": agent.id, "allowed_by": self.allowed_by}


def _approval(decision: Row, claim: Row | None) -> Approval:
    # A claim without a result names the approval that allowed it.
    spent = claim is not None and claim["result"].get("allowed_by") == decision["id"]
    return Approval(decision["status"] == "approved", decision["reason"], decision["comment"], spent)


def _claim(tx: Transaction, run: Run, step: int, calls: Sequence[_Call]) -> None:
    for call in calls:
        if call.audited:
            record(tx, Action.TOOL_CALLED, f"run:{run.id}", **call.told)
        if call.to_claim:
            claimed = tool_calls.ToolCall(call.id, call.name, call.arguments)
            tool_calls.claim(tx, run, step, claimed, call.allowed_by)


def _unclaim(tx: Transaction, run: Run, calls: Sequence[_Call]) -> None:
    """Take back the claims of calls that were not made: the next attempt makes them, without a person."""
    for call in calls:
        if call.audited:
            record(tx, Action.TOOL_FINISHED, f"run:{run.id}", result="refused", **call.told)
        if call.to_claim:
            tool_calls.unclaim(tx, run, call.id, call.former)


def _question(run: Run, call: _Call, reason: str) -> dict[str, Any]:
    """Build the row of a new approval."""
    return {
        "id": new_id("apr"),
        "run_id": run.id,
        "workspace_id": run.workspace_id,
        "user_id": run.user_id,
        "agent": run.agent,
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "reason": reason,
    }


def _ask_first(
    run: Run, journal: Journal, started: dict[str, Any], calls: Sequence[_Call], pending: Sequence[str]
) -> Events[None]:
    """Suspend the run before its calls are made, if one needs a decision. Raises `WaitsForApproval`."""
    to_ask = [call for call in calls if call.verdict.action == "ask"]
    if to_ask:
        yield from journal.publish(Event.STEP_STARTED, started)
        questions = [_question(run, call, call.verdict.reason) for call in to_ask if not call.is_asked]
        yield from _suspend(journal, questions, pending)


def _suspend(journal: Journal, questions: Sequence[dict[str, Any]], pending: Sequence[str]) -> Events[None]:
    """Request approvals, and suspend the run until all are decided. Raises `WaitsForApproval`."""
    for row in questions:
        call = {name: row[name] for name in ("name", "arguments", "reason")}
        journal.publish_after_commit(Event.APPROVAL_REQUIRED, {"approval_id": row["id"], **call})
    yield from journal.suspend(lambda tx: approvals.ask(tx, questions))
    raise WaitsForApproval([*pending, *(row["id"] for row in questions)])


def _is_decided(question: Row) -> bool:
    return question["status"] in ("approved", "denied")


def _decided(row: Row) -> dict[str, Any]:
    """Build the data of the `approval.decided` event."""
    return {
        "approval_id": row["id"],
        "name": row["name"],
        "decision": "approve" if row["status"] == "approved" else "deny",
        "comment": row["comment"],
        "arguments": row["arguments"],
    }
