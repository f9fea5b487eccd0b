"""Tool calls within a run: permission, approval, claim, call, keep.

An idempotent tool may be called again after a crash, so it needs no claim. Any other call is claimed in the
database before it is made and reported after: one that is claimed and not reported is `unknown`, and a
person decides whether it is made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Told
from service.runs.active import Handle
from service.runs.journal import Journal
from service.store import approvals, tool_calls
from service.store.base import Database, Row, Transaction
from service.tools import ToolContext, ToolResult, ToolRunner
from service.types import Block, Event, Run, new_id


class Suspended(Exception):
    """The run waits for a person's decision; no worker holds it until then."""


class Toolbox:
    """Calls an agent's tools for its runs."""

    def __init__(self, db: Database, runner: ToolRunner) -> None:
        self._db = db
        self._runner = runner

    def use(
        self,
        agent: AgentDefinition,
        run: Run,
        journal: Journal,
        handle: Handle,
        started: dict[str, Any],
        uses: Sequence[Block],
    ) -> Told[list[ToolResult]]:
        """Make the calls in order; one result for each. Raises `Suspended`."""
        claims, decisions = self._known(run, agent)
        open_questions = [use for use in uses if self._needs_a_person(agent, use, claims, decisions)]
        if open_questions:
            yield from self._suspend(agent, run, journal, started, open_questions, claims)
        fresh = [use for use in uses if self._to_claim(agent, use, claims, decisions)]
        yield from journal.commit(lambda tx: _claim(tx, run, started["step"], fresh, decisions))
        yield from journal.tell(Event.STEP_STARTED, started)
        results = []
        for use in uses:
            handle.check()
            arguments = _arguments(use, decisions)
            yield from journal.tell(
                Event.TOOL_CALLED, {"call_id": use["id"], "name": use["name"], "arguments": arguments}
            )
            result = self._result(agent, run, handle, use, arguments, claims, decisions)
            results.append(result)
            journal.later(
                Event.TOOL_FINISHED,
                {"call_id": use["id"], "ok": result.ok, "ms": round(result.ms), "preview": result.preview},
            )
        return results

    def _known(self, run: Run, agent: AgentDefinition) -> tuple[dict[str, Row], dict[str, Row]]:
        """Calls claimed by earlier attempts, and decisions taken: a first attempt has neither."""
        if run.attempt <= 1 and not run.resumed:
            return {}, {}

        def read(tx: Transaction) -> tuple[dict[str, Row], dict[str, Row]]:
            return tool_calls.of_run(tx, run.id), approvals.of_run(tx, run.id)

        return self._db.query(read)

    @staticmethod
    def _needs_a_person(agent: AgentDefinition, use: Block, claims: dict[str, Row], decisions: dict[str, Row]) -> bool:
        decision = decisions.get(use["id"])
        claim = claims.get(use["id"])
        if claim is not None and claim["status"] in ("claimed", "unknown"):
            # Asked before it was made is not asked since it went missing.
            return decision is None or decision["reason"] != "unknown" or decision["status"] == "pending"
        if claim is not None:
            return False
        return use["name"] in agent.approvals and (decision is None or decision["status"] == "pending")

    @staticmethod
    def _to_claim(agent: AgentDefinition, use: Block, claims: dict[str, Row], decisions: dict[str, Row]) -> bool:
        tool = agent.tools.get(use["name"])
        decision = decisions.get(use["id"])
        denied = decision is not None and decision["status"] == "denied"
        return tool is not None and not tool.idempotent and not denied and use["id"] not in claims

    def _suspend(
        self,
        agent: AgentDefinition,
        run: Run,
        journal: Journal,
        started: dict[str, Any],
        uses: Sequence[Block],
        claims: dict[str, Row],
    ) -> Told[None]:
        asked = [
            {
                "id": new_id("apr"),
                "run_id": run.id,
                "user_id": run.user_id,
                "agent": agent.id,
                "call_id": use["id"],
                "name": use["name"],
                "arguments": use["input"],
                "reason": "unknown" if use["id"] in claims else "policy",
            }
            for use in uses
        ]
        yield from journal.tell(Event.STEP_STARTED, started)
        for question in asked:
            told = {"approval_id": question["id"], "name": question["name"], "arguments": question["arguments"]}
            journal.later(Event.APPROVAL_REQUIRED, told)
        yield from journal.suspend(lambda tx: approvals.ask(tx, asked))
        raise Suspended

    def _result(
        self,
        agent: AgentDefinition,
        run: Run,
        handle: Handle,
        use: Block,
        arguments: dict[str, Any],
        claims: dict[str, Row],
        decisions: dict[str, Row],
    ) -> ToolResult:
        tool = agent.tools.get(use["name"])
        if tool is None:
            return ToolResult.failed(f"There is no tool named {use['name']}.")
        claim, decision = claims.get(use["id"]), decisions.get(use["id"])
        if claim is not None and claim["result"] is not None:
            return ToolResult(**{**claim["result"], "sources": tuple(claim["result"]["sources"])})
        if decision is not None and decision["status"] == "denied":
            return ToolResult.failed(_denial(decision))
        context = ToolContext(run.id, run.user_id, agent.id, use["id"], handle.deadline, agent.knowledge)
        result = self._runner.call(tool, arguments, context)
        if not tool.idempotent:
            self._report(run, use, result)
        return result

    def _report(self, run: Run, use: Block, result: ToolResult) -> None:
        """At once: until this is kept, the call would be `unknown` to the next worker."""
        kept = {
            "ok": result.ok,
            "content": result.content,
            "preview": result.preview,
            "ms": result.ms,
            "sources": list(result.sources),
        }
        status = "done" if result.ok else "failed"
        self._db.transact(lambda tx: tool_calls.report(tx, run.id, use["id"], status, kept), patience=30)


def _claim(tx: Transaction, run: Run, step: int, uses: Sequence[Block], decisions: dict[str, Row]) -> None:
    for use in uses:
        tool_calls.claim(tx, run.id, step, use["id"], use["name"], _arguments(use, decisions))


def _arguments(use: Block, decisions: dict[str, Row]) -> dict[str, Any]:
    """The call's arguments, as the person who approved it may have changed them."""
    decision = decisions.get(use["id"])
    return dict(decision["arguments"] if decision is not None else use["input"])


def _denial(decision: Row) -> str:
    why = f": {decision['comment']}" if decision["comment"] else "."
    if decision["reason"] == "unknown":
        return f"It is not known whether this call was made, and a person decided not to make it again{why}"
    return f"A person denied this call{why}"


