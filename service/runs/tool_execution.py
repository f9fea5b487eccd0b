"""Tool calls within a run: policy, approval, claim, call, store.

An idempotent tool may be called again after a crash, so it needs no claim, unless a person approved that one call. Any
other call is claimed in the database before it is made and reported after: a call that is claimed but not reported, or
that timed out, is `unknown`, and a person decides whether it is made again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Events
from service.audit.record import Action, Result, record
from service.errors import AgentStopped, RunCancelled, RunTimeout
from service.guardrails.taint import Taint
from service.knowledge import Knowledge
from service.llm.client import ModelReply
from service.memory import RunNotes
from service.runs.approval_requests import ApprovalRequests, required
from service.runs.attempt import Attempt
from service.runs.forked import scopes_of
from service.runs.journal import PATIENCE, Journal
from service.runs.journal_codec import encode_result
from service.runs.proposed_calls import Call, called, finished, is_decided, proposed, side_by_side
from service.runs.recorded_calls import from_record
from service.runs.slots import TOOL_GRACE, HandedOver, Handle
from service.store import approvals, keys, tool_calls
from service.store.database import Database, Row, Transaction
from service.store.visibility import TOOLS, allows
from service.tools import Tool, ToolContext, ToolResult, ToolRunner
from service.tools.context import Notes
from service.tools.runner import Invocation
from service.types import Event, Run
from service.usage.rate_limits import SharedRateLimit

AT_ONCE = 8  # calls of one reply that are made side by side


class WaitsForApproval(Exception):
    """Raised when a run waits for decisions about `approvals` (ids); no worker holds it until then."""

    def __init__(self, approvals: Sequence[str]) -> None:
        super().__init__()
        self.approvals = approvals


class ToolExecution:
    """Calls an agent's tools for its runs."""

    def __init__(
        self, db: Database, runner: ToolRunner, rate: SharedRateLimit, requests: ApprovalRequests
    ) -> None:
        self._db = db
        self._runner = runner
        self._rate = rate
        self._requests = requests

    def permitted(self, agent: AgentDefinition, run: Run) -> AgentDefinition:
        """Return the agent with those of its tools that the run's user and key may use now."""
        role = ""
        if any(policy.roles is not None for policy in agent.policies.values()):
            patience = PATIENCE if run.resumed else None
            role = self._db.query(lambda tx: keys.role(tx, run.user_id, run.key_id), patience=patience)

        def may(tool: Tool) -> bool:
            policy = agent.policies.get(tool.name)
            has_role = policy is None or policy.roles is None or role in policy.roles
            return has_role and allows(scopes_of(run.request), TOOLS + tool.risk)

        permitted = {name: tool for name, tool in agent.tools.items() if may(tool)}
        return agent if len(permitted) == len(agent.tools) else replace(agent, tools=permitted)

    def use(
        self,
        agent: AgentDefinition,
        attempt: Attempt,
        started: dict[str, Any],
        reply: ModelReply,
    ) -> Events[list[ToolResult]]:
        """Make the calls in order, those that only read side by side; return one result per call.

        Those of a fork are answered from its record. Raises `WaitsForApproval`, `AgentStopped`, or why the run must
        stop; the calls left are unclaimed then.
        """
        run, journal, handle = attempt.run, attempt.journal, attempt.handle
        if attempt.record is not None:
            make = partial(self._made_in_fork, agent, run, journal, handle)
            return (yield from from_record(agent, attempt, started, reply, make))
        calls, questions = self._calls(agent, run, reply, attempt.taint)
        ids = {call.id for call in calls}
        for row in questions:
            if row["call_id"] in ids and is_decided(row):
                journal.publish_after_commit(Event.APPROVAL_DECIDED, decided(row))
        pending = [row["id"] for row in questions if row["status"] == "pending"]
        yield from self._ask_first(run, journal, started, calls, pending)
        yield from journal.commit(lambda tx: _claim(tx, run, started["step"], calls))
        yield from journal.publish(Event.STEP_STARTED, started)
        results: list[ToolResult] = []
        for group in side_by_side(calls, AT_ONCE):
            try:
                handle.check()
                for call in group:
                    yield from journal.publish(Event.TOOL_CALLED, called(call, agent.marker))
                made = self._results(agent, attempt, group)
            except (AgentStopped, HandedOver, RunCancelled, RunTimeout):
                journal.write_with_next(partial(_unclaim, run=run, calls=calls[len(results) :]))
                raise
            if made[0].timed_out and group[0].to_claim:
                journal.write_with_next(partial(_unclaim, run=run, calls=calls[len(results) + 1 :]))
                _end_if_stopped(attempt, group[0], made[0])
                yield from self._suspend(
                    run, journal, [self._requests.about(run, group[0], "unknown")], pending
                )
            results += made
            for call, result in zip(group, made, strict=True):
                journal.publish_after_commit(Event.TOOL_FINISHED, finished(call, result))
        return results

    def claimed(self, run: Run) -> Mapping[str, int]:
        """Return the step of every call that an attempt at the run has claimed, by call id."""
        return {call_id: row["step"] for call_id, row in self.claims(run).items()}

    def claims(self, run: Run) -> Mapping[str, Row]:
        """Return every call that an attempt at the run has claimed, by call id."""
        return self._db.query(lambda tx: tool_calls.of_run(tx, run.id))

    def _calls(
        self, agent: AgentDefinition, run: Run, reply: ModelReply, taint: Taint
    ) -> tuple[list[Call], list[Row]]:
        """Return the reply's calls, and every approval of this run, oldest first."""
        claims: dict[str, Row] = {}
        questions: list[Row] = []
        if run.attempt > 1:  # a first attempt has no claims or approvals
            claims, questions = self._db.query(
                lambda tx: (tool_calls.of_run(tx, run.id), approvals.of_run(tx, run.id))
            )
        return proposed(reply, agent, claims, questions, taint), questions

    def _results(self, agent: AgentDefinition, attempt: Attempt, group: Sequence[Call]) -> list[ToolResult]:
        """Return the results of a group: those known before, and those of the calls made now, side by side."""
        run, handle = attempt.run, attempt.handle
        known = {call.id: result for call in group if (result := self._known(run, call)) is not None}
        due = [call for call in group if call.id not in known]
        invocations = _invocations(agent, run, handle, due, partial(self._notes, attempt, agent.id))
        if due:
            attempt.journal.check_owner()  # a worker suspended beyond its lease, or a stopped agent, must call nothing
        grace = TOOL_GRACE if any(call.to_claim for call in due) else 0.0
        made = self._runner.call_each(invocations, partial(handle.gives_up_tools_at, grace))
        known |= {call.id: result for call, result in zip(due, made, strict=True)}
        for call in group:
            if call.to_claim:
                self._report(run, call, known[call.id])
        return [known[call.id] for call in group]

    def _notes(self, attempt: Attempt, agent: str, call: Call) -> Notes | None:
        """Return the notes that a call of `agent` may use; None: none are kept here."""
        return RunNotes(self._db, attempt.run, agent, call.sources, attempt.rails.shown)

    def _made_in_fork(
        self, agent: AgentDefinition, run: Run, journal: Journal, handle: Handle, call: Call
    ) -> ToolResult:
        """Return the result of a call that reads nothing but the agent's folder."""
        known = self._known(run, call)
        if known is not None:
            return known
        journal.check_owner()
        gives_up_at = partial(handle.gives_up_tools_at, 0.0)
        return self._runner.call_each(
            _invocations(agent, run, handle, [call], lambda call: None), gives_up_at
        )[0]

    def _known(self, run: Run, call: Call) -> ToolResult | None:
        """Return the result of a call that is not made now; None: the call is to be made."""
        if call.verdict.action == "deny":
            return ToolResult.failed(call.verdict.reason)
        if call.result is not None:
            return call.result
        window = self._rate.take(run.user_id)
        if window is not None and window.remaining < 0:
            return ToolResult.failed(f"Too many tool calls. Try again in {math.ceil(window.reset)} seconds.")
        return None

    def _report(self, run: Run, call: Call, result: ToolResult) -> None:
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

    def _ask_first(
        self,
        run: Run,
        journal: Journal,
        started: dict[str, Any],
        calls: Sequence[Call],
        pending: Sequence[str],
    ) -> Events[None]:
        """Suspend the run before its calls are made, if one needs a decision. Raises `WaitsForApproval`."""
        to_ask = [call for call in calls if call.verdict.action == "ask"]
        if to_ask:
            yield from journal.publish(Event.STEP_STARTED, started)
            new = [call for call in to_ask if not call.is_asked]
            questions = [self._requests.about(run, call, call.verdict.reason) for call in new]
            yield from self._suspend(run, journal, questions, pending)

    def _suspend(
        self, run: Run, journal: Journal, questions: Sequence[dict[str, Any]], pending: Sequence[str]
    ) -> Events[None]:
        """Request approvals, and suspend the run until all are decided. Raises `WaitsForApproval`."""
        for row in questions:
            journal.publish_after_commit(Event.APPROVAL_REQUIRED, required(row))
        yield from journal.suspend(lambda tx: self._requests.write(tx, run, questions))
        raise WaitsForApproval([*pending, *(row["id"] for row in questions)])


def _invocations(
    agent: AgentDefinition,
    run: Run,
    handle: Handle,
    calls: Sequence[Call],
    notes: Callable[[Call], Notes | None],
) -> list[Invocation]:
    return [
        Invocation(
            call.tool,
            call.arguments,
            ToolContext(
                run.id, run.user_id, agent.id, call.id, handle.deadline, _knowledge_of(agent), notes(call)
            ),
        )
        for call in calls
        if call.tool is not None
    ]


def _knowledge_of(agent: AgentDefinition) -> Knowledge | None:
    """Return an agent's knowledge for one call, which learns whether what it finds may be trusted."""
    return agent.knowledge.for_call() if agent.knowledge is not None else None


def _end_if_stopped(attempt: Attempt, call: Call, result: ToolResult) -> None:
    """Raise why the run must stop, if it must; clients and the session learn that the call's outcome is unknown."""
    try:
        attempt.handle.check()
    except (RunCancelled, RunTimeout):
        attempt.journal.publish_after_commit(Event.TOOL_FINISHED, {**finished(call, result), "unknown": True})
        raise


def _claim(tx: Transaction, run: Run, step: int, calls: Sequence[Call]) -> None:
    for call in calls:
        if call.audited:
            record(tx, Action.TOOL_CALLED, f"run:{run.id}", **call.told)
        if call.to_claim:
            claimed = tool_calls.ToolCall(call.id, call.name, call.arguments)
            tool_calls.claim(tx, run, step, claimed, call.allowed_by)


def _unclaim(tx: Transaction, run: Run, calls: Sequence[Call]) -> None:
    """Take back the claims of calls that were not made: the next attempt makes them, without a person."""
    for call in calls:
        if call.audited:
            record(tx, Action.TOOL_FINISHED, f"run:{run.id}", result="refused", **call.told)
        if call.to_claim:
            tool_calls.unclaim(tx, run, call.id, call.former)


def decided(row: Row) -> dict[str, Any]:
    """Build the data of the `approval.decided` event."""
    return {
        "approval_id": row["id"],
        "name": row["name"],
        "decision": "approve" if row["status"] == "approved" else "deny",
        "comment": row["comment"],
        "arguments": row["arguments"],
    }
