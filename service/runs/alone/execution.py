"""Execution of an agent served alone: one attempt at a run that is stored, paid and told elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

import orjson

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Context, Events
from service.agents.patterns import PATTERNS
from service.errors import AgentFault, SlipwayError
from service.guardrails.taint import Taint
from service.llm.client import ModelClient
from service.observe.observer import Observer
from service.runs.alone.journal import UnstoredJournal
from service.runs.alone.steps import AloneSteps, AloneTools, AsksPeople
from service.runs.attempt import Attempt
from service.runs.output_form import OutputForm
from service.runs.slots import Handle
from service.runs.steps import StepDependencies
from service.runs.structured import structured
from service.runs.untrusted import answer_without_links
from service.tools import ToolRunner
from service.types import Answer, Event, Message, Run, RunEvent, RunRequest
from service.usage.prices import PriceTable

MAX_STATE = 1024 * 1024  # bytes of the steps so far, as JSON
# Model steps are told where they are kept, at the gateway.
TOLD = (Event.STEP_STARTED, Event.TEXT_DELTA, Event.TOOL_CALLED, Event.TOOL_FINISHED)
log = logging.getLogger("slipway.runs")
T = TypeVar("T")
Tell = Callable[[RunEvent], object]
Steps = Sequence[Mapping[str, Any]]  # `kind`, `name` and `reply` of each step


@dataclass(frozen=True, slots=True)
class Order:
    """Run that another Slipway asks for. `messages`: history and turn, as its model is to see them.

    `stored` are the steps up to a question, `decisions` the answers to it. `tools` are those that its user may use.
    `streams`: the text is told as it arrives.
    """

    run_id: str
    request: RunRequest
    messages: tuple[Message, ...]
    taint: Taint
    tools: Sequence[str] = ()
    stored: Steps = ()
    decisions: Steps = ()
    streams: bool = True


class AloneExecution:
    """Executes runs of agents served alone; one per process."""

    def __init__(self, prices: PriceTable, runner: ToolRunner) -> None:
        self._prices = prices
        self._runner = runner

    def execute(
        self, agent: AgentDefinition, order: Order, client: ModelClient, handle: Handle, tell: Tell
    ) -> dict[str, Any]:
        """Execute a run in this thread; `tell` gets its events. Return its answer, as docs/remote-agents.md has it.

        Never raises: a failure is an answer too.
        """
        handle.limit(agent.limits.seconds, agent.limits.model_seconds)
        permitted = {name: tool for name, tool in agent.tools.items() if name in order.tools}
        agent = replace(agent, tools=permitted)
        journal, attempt = _attempt(agent, order, handle, tell)
        try:
            answer = _to_the_end(self._answer(agent, order, client, attempt))
        except AsksPeople as asked:
            return _asking(asked.questions, journal.kept)
        except SlipwayError as error:
            return {"status": "failed", "error": error.as_problem(), "tools": _tools(attempt)}
        except Exception as error:
            log.error("run_failed", extra={"run_id": order.run_id, "agent": agent.id}, exc_info=error)
            return {"status": "failed", "error": AgentFault().as_problem(), "tools": _tools(attempt)}
        return _succeeded(answer, attempt)

    def _answer(
        self, agent: AgentDefinition, order: Order, client: ModelClient, attempt: Attempt
    ) -> Events[Answer]:
        tools = AloneTools(self._runner, order.decisions)
        # No money, no batches and no documents of workspaces: `AloneSteps` reaches none.
        dependencies = StepDependencies(client, self._prices, tools, None, None, Observer(), None, None)  # type: ignore[arg-type]
        steps = AloneSteps(dependencies, agent, attempt)
        context = Context(agent, order.request, order.messages, agent.system, steps)
        answer = yield from PATTERNS[agent.pattern].run(context)
        answer = answer_without_links(answer, attempt.taint, agent)
        answer = yield from structured(answer, attempt, steps, agent)
        if answer.untold:
            attempt.text.write_after_commit(answer.untold)
        yield from attempt.journal.commit()
        return answer


def _attempt(
    agent: AgentDefinition, order: Order, handle: Handle, tell: Tell
) -> tuple[UnstoredJournal, Attempt]:
    door = "stream" if order.streams else "invoke"
    run = Run(order.run_id, "", agent.id, agent.version, door, order.request, attempt=1)

    def publish(events: Sequence[RunEvent]) -> None:
        for event in events:
            if event.name in TOLD and event.data.get("kind") != "model":
                tell(event)

    journal = UnstoredJournal(run, publish, order.stored)
    attempt = Attempt(run, journal, handle)
    attempt.taint = order.taint
    attempt.form = OutputForm.of(agent, order.request)
    attempt.text.held = attempt.form is not None
    return journal, attempt


def _to_the_end(events: Events[T]) -> T:
    """Exhaust a generator, whose events the journal has published; return its value."""
    while True:
        try:
            next(events)
        except StopIteration as done:
            value: T = done.value
            return value


def _succeeded(answer: Answer, attempt: Attempt) -> dict[str, Any]:
    return {
        "status": "succeeded",
        "output": answer.output,
        "structured": answer.structured,
        "stop_reason": answer.stop_reason,
        "model": answer.model,
        "sources": list(answer.sources),
        "tools": _tools(attempt),
    }


def _asking(questions: Steps, kept: Steps) -> dict[str, Any]:
    state = {"steps": list(kept)}
    if len(orjson.dumps(state)) > MAX_STATE:
        error = AgentFault("The steps before a question to a person are too large to be kept.")
        return {"status": "failed", "error": error.as_problem()}
    return {"status": "waiting_approval", "approvals": list(questions), "state": state}


def _tools(attempt: Attempt) -> list[dict[str, Any]]:
    return [asdict(use) for use in attempt.tools_used]
