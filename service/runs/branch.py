"""Branch of a run: one sub-agent at its task, in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.pattern import AgentResult, AgentTask, Context, Events, PatternModule, Prompt
from service.agents.remote_spec import RemoteSpec
from service.errors import (
    AgentFault,
    AgentStopped,
    BudgetExceeded,
    DatabaseUnavailable,
    RunCancelled,
    RunTimeout,
    SlipwayError,
)
from service.llm.client import ModelReply
from service.observe import genai, logs, tracing
from service.observe.tracing import Within
from service.runs.attempt import Attempt
from service.runs.branch_journal import BranchJournal
from service.runs.branch_rows import AGENT
from service.runs.remote_step import RemoteStep
from service.runs.replies import call_ids, well_formed
from service.runs.slots import HandedOver, LeaseLost
from service.runs.steps import RunSteps, StepDependencies
from service.runs.tool_execution import WaitsForApproval
from service.runs.untrusted import noting
from service.store.holds import Hold
from service.text.sanitise import storable
from service.tools import ToolResult
from service.types import Answer, Event, Message, RunEvent, less_sure

log = logging.getLogger("slipway.runs")
PREVIEW = 200  # characters of a result in `tool.finished`


class Stopped(Exception):
    """Raised in a branch when another one has ended the run."""


# Ends the run and not only the sub-agent.
ENDS_RUN = (
    BudgetExceeded,
    RunCancelled,
    RunTimeout,
    LeaseLost,
    HandedOver,
    AgentStopped,
    DatabaseUnavailable,
    Stopped,
)


class Shared:
    """State that the branches of one tree share: `ids` of the run's tool calls, the `tree` hold, and `stop`."""

    def __init__(self, ids: set[str]) -> None:
        self.lock = threading.Lock()
        self.ids = ids
        self.tree: Hold | None = None
        self.stop = threading.Event()


class BranchSteps(RunSteps):
    """Steps of a sub-agent: its text is not published, and each step is committed when it ends."""

    def __init__(
        self, dependencies: StepDependencies, agent: AgentDefinition, attempt: Attempt, shared: Shared
    ) -> None:
        super().__init__(dependencies, agent, attempt)
        self._shared = shared

    def model(self, name: str, prompt: Prompt, *, counts: bool = True) -> Events[ModelReply]:
        self._check()
        reply = yield from super().model(name, replace(prompt, publish=False), counts=counts)
        yield from self._journal.commit_finished()
        return reply

    def tools(self, name: str, reply: ModelReply) -> Events[list[ToolResult]]:
        self._check()
        results = yield from super().tools(name, self._with_own_ids(reply))
        yield from self._journal.commit_finished()
        return results

    def remote(self, name: str, where: RemoteSpec, messages: Sequence[Message]) -> Events[Answer]:
        self._check()
        step = RemoteStep(self._deps.remote, self._agent, self._attempt, publish=False)
        answer = yield from step.ask(name, where, messages)
        yield from self._journal.commit_finished()
        return answer

    def agents(self, *args: Any) -> Events[list[AgentResult]]:
        """Refuse: a tree has one level."""
        raise AgentFault("A sub-agent may have no sub-agents.")

    def _check(self) -> None:
        """Raise `Stopped`, or `AgentFault` where the sub-agent is stopped: its run is another agent's."""
        if self._shared.stop.is_set():
            raise Stopped
        try:
            self._deps.spending.check_running(self._agent.id)
        except AgentStopped as error:
            raise AgentFault(error.detail) from None

    def _with_own_ids(self, reply: ModelReply) -> ModelReply:
        """Make the ids of calls that no model asked for, but a pattern, different from those of other branches."""
        prefix = self._journal.call_prefix
        content = [
            {**block, "id": f"{prefix}{block['id']}"}
            if block.get("type") == "tool_use"
            and block["id"] not in self._shared.ids
            and not block["id"].startswith(prefix)
            else block
            for block in reply.content
        ]
        return replace(reply, content=content)

    def _well_formed(self, reply: ModelReply) -> ModelReply:
        with self._shared.lock:
            reply = well_formed(reply, self._shared.ids)
            self._shared.ids.update(call_ids(reply))
        return reply


class Branch:
    """Sub-agent at its task. `execute` runs in a thread; then there is a `result`, or the `error` that ended it.

    A result that an earlier attempt stored is there from the start.
    """

    def __init__(self, attempt: Attempt, task: AgentTask, number: str) -> None:
        self.task = task
        self.number = number
        self.journal = BranchJournal(attempt.journal, task.agent, number)
        # Its request is the task: the caller's limits and tier are the lead's.
        request = replace(
            attempt.run.request,
            messages=({"role": "user", "content": task.text},),
            context=None,
            max_tokens=None,
            max_steps=None,
            effort=None,
            tier="auto",
        )
        run = replace(attempt.run, request=request, usage_source="reported")
        self._attempt, self._rails = Attempt(run, self.journal, attempt.handle), attempt.rails
        self._attempt.record = attempt.record and attempt.record.of_branch(number)
        # The task is text of the lead, which may repeat what is untrusted: the user's words are those of the run.
        self._attempt.taint = attempt.taint.copy()
        self._began = time.monotonic()
        self.error: BaseException | None = None
        self.stored = self.journal.result
        if self.stored is not None:
            attempt.journal.branch_steps += self.stored["steps"]

    def execute(
        self,
        dependencies: StepDependencies,
        agent: AgentDefinition | None,
        pattern: PatternModule | None,
        shared: Shared,
        tell: Callable[[RunEvent | None], object],
    ) -> None:
        """Execute to the end; `tell` gets each event, then None. Sets `stored`, or `error`."""
        self._began = time.monotonic()
        self._attempt.tree = shared.tree
        try:
            with logs.bound(branch=self.number), self._span():
                for event in self._events(dependencies, agent, pattern, shared):
                    tell(event)
        except BaseException as error:
            self.error = error
            if isinstance(error, ENDS_RUN):
                shared.stop.set()
        finally:
            tell(None)

    def _span(self) -> Within:
        about = {
            genai.OPERATION: genai.INVOKE_AGENT,
            genai.AGENT: self.task.agent,
            genai.BRANCH: self.number,
            genai.RUN: self._attempt.run.id,
        }
        return tracing.span(f"{genai.INVOKE_AGENT} {self.task.agent}", "internal", about)

    def _events(
        self,
        dependencies: StepDependencies,
        agent: AgentDefinition | None,
        pattern: PatternModule | None,
        shared: Shared,
    ) -> Events[None]:
        name, call = f"agent:{self.task.agent}", f"agent_{self.number}"
        called = {"call_id": call, "name": name, "arguments": {"task": self.task.text}}
        yield from self.journal.publish(Event.TOOL_CALLED, called)
        try:
            if agent is None or pattern is None:
                raise AgentFault(f"There is no agent named {self.task.agent}.")
            self._attempt.guard(self._rails.of_branch(agent, self.journal))
            steps = BranchSteps(dependencies, agent, self._attempt, shared)
            messages = self._attempt.run.request.messages
            answer = yield from pattern.run(
                Context(
                    noting(agent, self._attempt.taint),
                    self._attempt.run.request,
                    messages,
                    agent.system,
                    steps,
                )
            )
        except WaitsForApproval:
            raise
        except ENDS_RUN:
            with suppress(LeaseLost, DatabaseUnavailable):  # what was spent until now
                yield from self.journal.commit_finished()
            raise
        except SlipwayError as error:
            yield from self._end(AgentResult(self.task.agent, False, error.detail))
        except Exception:
            log.exception("sub_agent_failed", extra={"agent": self.task.agent, "branch": self.number})
            yield from self._end(AgentResult(self.task.agent, False, "It failed by an internal error."))
        else:
            yield from self._end(_result(self.task.agent, answer))

    def _end(self, result: AgentResult) -> Events[None]:
        """Store the result with all that the run's own result counts of this branch."""
        ms = round((time.monotonic() - self._began) * 1000)
        stored = {
            "ok": result.ok,
            "output": result.output,
            "stop_reason": result.stop_reason,
            "model": result.model,
            "sources": list(result.sources),
            "untrusted": list(self._attempt.taint.sources),
            "read": sorted(self._attempt.taint.read),
            "steps": self.journal.steps,
            "usage_source": self._attempt.run.usage_source,
            "clamped": self._attempt.clamped,
        }
        self.journal.add_step(AGENT, "result", stored)
        finished = {"call_id": f"agent_{self.number}", "ok": result.ok, "ms": ms}
        preview = storable(
            result.output if len(result.output) <= PREVIEW else result.output[: PREVIEW - 1] + "…"
        )
        self.journal.publish_after_commit(Event.TOOL_FINISHED, {**finished, "preview": preview})
        yield from self.journal.commit_finished()
        self.stored = stored

    def take(self, attempt: Attempt) -> AgentResult:
        """Add what this branch used to its run; return its result."""
        stored = self.stored
        assert stored is not None
        attempt.run.usage_source = less_sure(attempt.run.usage_source, stored["usage_source"])
        attempt.taint.read.update(stored["read"])
        for source in stored["untrusted"]:
            attempt.taint.add(source, stored["output"])
        attempt.model_seconds += self._attempt.model_seconds
        if stored["clamped"] is not None:
            attempt.clamped = min(stored["clamped"], attempt.clamped or stored["clamped"])
        return AgentResult(
            self.task.agent,
            stored["ok"],
            stored["output"],
            stored["stop_reason"],
            stored["model"],
            tuple(stored["sources"]),
        )


def _result(agent: str, answer: Answer) -> AgentResult:
    return AgentResult(agent, True, answer.output, answer.stop_reason, answer.model, answer.sources)
