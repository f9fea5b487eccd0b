"""Tool calls within a run: permission, approval, claim, call, keep.

An idempotent tool may be called again after a crash, so it needs no claim. Any other call is claimed in the
database before it is made and reported after: one that is claimed and not reported, or that timed out, is
`unknown`, and a person decides whether it is made again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence, Set
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Events
from service.llm.client import ModelReply
from service.runs.journal import Journal
from service.runs.journal_codec import kept_result, result_of
from service.runs.slots import Handle
from service.store import approvals, tool_calls
from service.store.database import Database, Row, Transaction
from service.tools import ToolContext, ToolResult, ToolRunner
from service.types import Block, Event, Run, new_id
from service.usage.rate_limits import SharedRateLimit

ApprovalQuestion = tuple[Block, str]  # a call, and why a person is asked about it: `policy` or `unknown`


class WaitsForApproval(Exception):
    """The run waits for a person to decide about `approvals` (their ids); no worker holds it until then."""

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
        """Make the calls in order; one result for each. Raises `Suspended`."""
        uses = reply.tool_uses
        calls = self._known(run, agent, reply.unreadable)
        for decision in calls.decisions_about(uses):
            journal.later(Event.APPROVAL_DECIDED, _decided(decision))
        questions = [(use, calls.why(use)) for use in uses if calls.needs_a_person(use)]
        if questions:
            yield from journal.tell(Event.STEP_STARTED, started)
            yield from self._suspend(agent, run, journal, questions, calls)
        fresh = [use for use in uses if calls.to_claim(use)]
        yield from journal.commit(lambda tx: _claim(tx, run, started["step"], fresh, calls))
        yield from journal.tell(Event.STEP_STARTED, started)
        results = []
        for use in uses:
            handle.check()
            told = {"call_id": use["id"], "name": use["name"], "arguments": calls.arguments(use)}
            yield from journal.tell(Event.TOOL_CALLED, told)
            result = self._result(agent, run, journal, handle, use, calls)
            if result.timed_out and not agent.tools[use["name"]].idempotent:
                handle.check()  # a run that is out of time itself ends here
                yield from self._suspend(agent, run, journal, [(use, "unknown")], calls)
            results.append(result)
            journal.later(
                Event.TOOL_FINISHED,
                {"call_id": use["id"], "ok": result.ok, "ms": round(result.ms), "preview": result.preview},
            )
        return results

    def _known(self, run: Run, agent: AgentDefinition, unreadable: Set[str]) -> _Calls:
        """Calls claimed by earlier attempts, and decisions taken: a first attempt has neither."""
        if run.attempt <= 1 and not run.resumed:
            return _Calls(agent, {}, [], unreadable)

        def read(tx: Transaction) -> _Calls:
            claims, asked = tool_calls.of_run(tx, run.id), approvals.of_run(tx, run.id)
            return _Calls(agent, claims, asked, unreadable)

        return self._db.query(read)

    def _suspend(
        self,
        agent: AgentDefinition,
        run: Run,
        journal: Journal,
        questions: Sequence[ApprovalQuestion],
        calls: _Calls,
    ) -> Events[None]:
        """Ask about each call that nobody is being asked about yet, and wait."""
        asked = [
            {
                "id": new_id("apr"),
                "run_id": run.id,
                "user_id": run.user_id,
                "agent": agent.id,
                "call_id": use["id"],
                "name": use["name"],
                "arguments": calls.arguments(use),
                "reason": reason,
            }
            for use, reason in questions
            if not calls.is_asked(use)
        ]
        for row in asked:
            told = {name: row[name] for name in ("name", "arguments", "reason")}
            journal.later(Event.APPROVAL_REQUIRED, {"approval_id": row["id"], **told})
        yield from journal.suspend(lambda tx: approvals.ask(tx, asked))
        raise WaitsForApproval(calls.pending() + [row["id"] for row in asked])

    def _result(
        self,
        agent: AgentDefinition,
        run: Run,
        journal: Journal,
        handle: Handle,
        use: Block,
        calls: _Calls,
    ) -> ToolResult:
        tool = agent.tools.get(use["name"])
        if tool is None:
            return ToolResult.failed(f"There is no tool named {use['name']}.")
        if not calls.is_readable(use):
            return ToolResult.failed(
                "The arguments could not be read: send one JSON object, not deeply nested."
            )
        if (kept := calls.result(use)) is not None:
            return kept
        decision = calls.decision(use)
        if decision is not None and decision["status"] == "denied":
            return ToolResult.failed(_denial(decision))
        context = ToolContext(run.id, run.user_id, agent.id, use["id"], handle.deadline, agent.knowledge)
        window = self._rate.take(run.user_id)
        if window is not None and window.remaining < 0:
            result = ToolResult.failed(
                f"Too many tool calls. Try again in {math.ceil(window.reset)} seconds."
            )
        else:
            journal.check_owner()  # a worker that was stopped for longer than its lease must call nothing more
            result = self._runner.call(tool, calls.arguments(use), context)
        if not tool.idempotent:
            self._report(run, use, result)
        return result

    def _report(self, run: Run, use: Block, result: ToolResult) -> None:
        """At once: until this is kept, the call would be `unknown` to the next worker."""
        status = "done" if result.ok else "failed"

        def report(tx: Transaction) -> None:
            if result.timed_out:
                tool_calls.report_unknown(tx, run.id, use["id"])
            else:
                tool_calls.report(tx, run.id, use["id"], status, kept_result(result))

        self._db.transact(report, patience=30)


class _Calls:
    """What is known of a run's calls: the claims of earlier attempts, and what people were asked and said."""

    def __init__(
        self,
        agent: AgentDefinition,
        claims: dict[str, Row],
        questions: Sequence[Row],
        unreadable: Set[str] = frozenset(),
    ) -> None:
        self._agent = agent
        self._unreadable = unreadable
        self._claims = claims
        self._questions = questions
        self._latest = {row["call_id"]: row for row in questions}

    def decisions_about(self, uses: Sequence[Block]) -> list[Row]:
        """Every decision about these calls, oldest first."""
        ids = {use["id"] for use in uses}
        return [row for row in self._questions if row["call_id"] in ids and _is_decided(row)]

    def decision(self, use: Block) -> Row | None:
        """The last word about this call."""
        row = self._latest.get(use["id"])
        return row if row is not None and _is_decided(row) else None

    def pending(self) -> list[str]:
        """Ids of the questions that nobody has decided yet, oldest first."""
        return [row["id"] for row in self._questions if row["status"] == "pending"]

    def is_asked(self, use: Block) -> bool:
        return use["id"] in self._latest and self._latest[use["id"]]["status"] == "pending"

    def is_readable(self, use: Block) -> bool:
        """Tell whether the call's arguments are an object; one whose are not is never made."""
        return use["id"] not in self._unreadable

    def why(self, use: Block) -> str:
        return "unknown" if use["id"] in self._claims else "policy"

    def needs_a_person(self, use: Block) -> bool:
        decision, claim = self.decision(use), self._claims.get(use["id"])
        if not self.is_readable(use):
            return False
        if claim is None:
            return use["name"] in self._agent.approvals and decision is None
        if claim["status"] in ("done", "failed"):
            return False
        # It went missing. A decision allows a call to be made once: one from before it was made is spent.
        return decision is None or decision["id"] == claim["result"]["allowed_by"]

    def to_claim(self, use: Block) -> bool:
        tool, decision = self._agent.tools.get(use["name"]), self.decision(use)
        denied = decision is not None and decision["status"] == "denied"
        if tool is None or tool.idempotent or denied or not self.is_readable(use):
            return False
        return self.result(use) is None

    def result(self, use: Block) -> ToolResult | None:
        """What the call gave to an earlier attempt."""
        claim = self._claims.get(use["id"])
        if claim is None or claim["status"] not in ("done", "failed"):
            return None
        return result_of(claim["result"])

    def arguments(self, use: Block) -> dict[str, Any]:
        """The call's arguments, as the person who approved it may have changed them."""
        decision = self.decision(use)
        return dict(decision["arguments"] if decision is not None else use["input"])


def _claim(tx: Transaction, run: Run, step: int, uses: Sequence[Block], calls: _Calls) -> None:
    for use in uses:
        decision = calls.decision(use)
        allowed_by = decision["id"] if decision is not None else None
        tool_calls.claim(tx, run.id, step, use["id"], use["name"], calls.arguments(use), allowed_by)


def _is_decided(question: Row) -> bool:
    return question["status"] in ("approved", "denied")


def _decided(row: Row) -> dict[str, Any]:
    """The event that tells of a decision."""
    said = "approve" if row["status"] == "approved" else "deny"
    told = {"approval_id": row["id"], "name": row["name"], "decision": said, "comment": row["comment"]}
    return {**told, "arguments": row["arguments"]}


def _denial(decision: Row) -> str:
    why = f": {decision['comment']}" if decision["comment"] else "."
    if decision["reason"] == "unknown":
        return f"It is not known whether this call was made, and a person decided not to make it again{why}"
    return f"A person denied this call{why}"
