"""Steps of a run that is stored elsewhere: its model calls are held and settled by the gateway that makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.pattern import AgentResult, Events
from service.errors import AgentFault
from service.guardrails.taint import Taint
from service.llm.client import CallProgress, ModelReply, ModelRequest
from service.runs.approval_requests import MAX_EXPLANATION
from service.runs.attempt import Attempt
from service.runs.billing import CallBilling
from service.runs.event_log import NewEvent
from service.runs.journal import Journal
from service.runs.proposed_calls import Call, proposed
from service.runs.steps import RunSteps
from service.runs.tool_execution import ToolExecution
from service.store.database import Row
from service.store.transaction import WriteInTransaction
from service.tools import ToolResult, ToolRunner
from service.tools.context import Notes
from service.types import Run, RunEvent
from service.usage.prices import Price


class AsksPeople(Exception):
    """Raised when a person has to decide about tool calls: `call_id`, `name` and `arguments` of each."""

    def __init__(self, questions: Sequence[dict[str, Any]]) -> None:
        super().__init__()
        self.questions = questions


class AloneSteps(RunSteps):
    """`RunSteps` without money and without sub-agents."""

    def agents(self, *args: Any) -> Events[list[AgentResult]]:
        raise AgentFault("An agent served alone has no sub-agents.")

    def _billing(self, price: Price) -> CallBilling:
        self._attempt.handle.check()
        return _BilledByGateway(self._attempt)


class _BilledByGateway(CallBilling):
    """`CallBilling` of calls that the gateway holds and settles."""

    def __init__(self, attempt: Attempt) -> None:
        self._journal = attempt.journal

    def reserve(
        self,
        request: ModelRequest,
        *,
        whole: bool = False,
        along: Sequence[WriteInTransaction] = (),
        then: Sequence[NewEvent] = (),
    ) -> tuple[ModelRequest, list[RunEvent]]:
        return request, self._journal.commit(then=then)

    def reserve_again(self, request: ModelRequest, failed: CallProgress) -> None: ...

    def settle(self, request: ModelRequest, reply: ModelReply) -> tuple[ModelReply, int]:
        return reply, 0

    def settle_failed(self, request: ModelRequest, progress: CallProgress) -> None: ...


class AloneTools(ToolExecution):
    """`ToolExecution` of tools that only read. `decisions` of people are those about the questions of this run."""

    def __init__(self, runner: ToolRunner, decisions: Sequence[Mapping[str, Any]]) -> None:
        self._runner = runner
        self._decisions = decisions

    def _calls(
        self, agent: AgentDefinition, run: Run, reply: ModelReply, taint: Taint
    ) -> tuple[list[Call], list[Row]]:
        questions: list[Row] = [
            {
                "id": f"decision_{number}",
                "reason": "policy",
                "status": "approved" if decision["decision"] == "approve" else "denied",
                "decided_by": "a person",
                **{name: decision[name] for name in ("call_id", "name", "arguments", "comment")},
            }
            for number, decision in enumerate(self._decisions)
        ]
        # The decisions were told by the Slipway whose run this is.
        return proposed(reply, agent, {}, questions, taint), []

    def _notes(self, attempt: Attempt, agent: str, call: Call) -> Notes | None:
        return None

    def _known(self, run: Run, call: Call) -> ToolResult | None:
        return ToolResult.failed(call.verdict.reason) if call.verdict.action == "deny" else None

    def _results(self, agent: AgentDefinition, attempt: Attempt, group: Sequence[Call]) -> list[ToolResult]:
        """Return results of which a time-out is a failure like any other: the call can have changed nothing."""
        made = super()._results(agent, attempt, group)
        return [replace(result, timed_out=False) for result in made]

    def _report(self, run: Run, call: Call, result: ToolResult) -> None: ...

    def _ask_first(
        self,
        run: Run,
        journal: Journal,
        started: dict[str, Any],
        calls: Sequence[Call],
        pending: Sequence[str],
    ) -> Events[None]:
        to_ask = [_question(call) for call in calls if call.verdict.action == "ask"]
        if to_ask:
            raise AsksPeople(to_ask)
        yield from ()


def _question(call: Call) -> dict[str, Any]:
    return {
        "call_id": call.id,
        "name": call.name,
        "arguments": call.arguments,
        "reason": call.verdict.reason,
        "explanation": call.explanation[:MAX_EXPLANATION] or None,
    }
