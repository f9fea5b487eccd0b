"""Step of a run that a remote agent takes: asked, told as it answers, stored; its questions are approvals."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.flows import link_hosts
from service.agents.pattern import Events, most_steps
from service.agents.remote_spec import RemoteSpec
from service.auth.run_tokens import RunTokens
from service.errors import AgentFault, DatabaseUnavailable, RemoteFailed, RemoteUnavailable, RunLimit
from service.remote.client import Exchange, RemoteClient
from service.remote.task import MAX_OUTPUT, AnswerBroken, RemoteAnswer, RemoteEvent, RemoteTask
from service.runs.approval_requests import required
from service.runs.attempt import Attempt
from service.runs.gateway_steps import GatewaySteps
from service.runs.remote_answers import failure_of, stored_answer
from service.runs.remote_facts import facts_of
from service.runs.remote_questions import RemoteQuestions
from service.runs.slots import LeaseLost
from service.runs.step_spans import in_step
from service.runs.tool_execution import WaitsForApproval
from service.runs.untrusted import clean
from service.store import ownership
from service.store import runs as run_rows
from service.store.database import Database
from service.text import exact_json
from service.text.sanitise import storable_json
from service.types import Answer, Event, Message, RunEvent, ToolUse, now_ms, rfc3339
from service.usage.reservation import Spending

SOURCE = "remote"  # of untrusted text
# Failures of the agent: others stop the run, whatever it did.
FAILURES = (RemoteFailed, RemoteUnavailable, AnswerBroken)
MAX_PARTS = 20  # questions of one step, one after the other
MAX_EVENTS = 2_000  # tool events told of one answer
PAUSE = 0.25  # seconds between two looks whether the run must stop
PATIENCE = 60.0  # seconds that an agent which may be starting again is waited for, within the run's deadline
MAX_BROKEN = 2  # attempts at a run that may end with a broken answer, or with their worker, before it fails
TELL_SECONDS = 1.0  # between two looks for gateway calls to be told


@dataclass(frozen=True, slots=True)
class RemoteDependencies:
    """Dependencies of remote steps; one set per process. `base_url`: where remote agents reach the gateway."""

    db: Database
    client: RemoteClient
    spending: Spending
    tokens: RunTokens
    questions: RemoteQuestions
    base_url: str


class RemoteStep:
    """One step of a remote agent, in one attempt at a run. `publish`: clients get its text."""

    def __init__(
        self, dependencies: RemoteDependencies, agent: AgentDefinition, attempt: Attempt, *, publish: bool
    ) -> None:
        self._deps, self._agent, self._attempt, self._publish = dependencies, agent, attempt, publish
        self._run, self._journal = attempt.run, attempt.journal
        self._gateway = GatewaySteps(
            dependencies.db, dependencies.spending, dependencies.tokens, attempt, agent.id
        )

    def ask(self, name: str, where: RemoteSpec, messages: Sequence[Message]) -> Events[Answer]:
        """Ask until there is an answer, and people have decided about its questions.

        Raises `WaitsForApproval`, `RunLimit` after `MAX_PARTS` questions, and as `Steps.remote` does.
        """
        resume: dict[str, Any] | None = None
        for part in range(1, MAX_PARTS + 1):
            label = name if part == 1 else f"{name}, part {part}"
            stored = self._journal.replay("remote", label)
            if stored is None:
                about = {"step": self._journal.steps + 1, "name": label, "kind": "remote"}
                stored = yield from in_step(about, self._asked(label, where, messages, resume))
            self._note(stored)
            if stored["status"] == "succeeded":
                return _answer(stored)
            if stored["status"] == "failed":
                raise failure_of(stored)
            resume = yield from self._decided(stored)
        raise RunLimit(f"The remote agent asked for approvals {MAX_PARTS} times.")

    def _asked(
        self, label: str, where: RemoteSpec, messages: Sequence[Message], resume: dict[str, Any] | None
    ) -> Events[dict[str, Any]]:
        """Ask once, store what came of it, with the questions; return it. Raises `WaitsForApproval`."""
        handle, journal = self._attempt.handle, self._journal
        handle.check()
        if self._run.request.fork is not None:  # the agent has become remote since its run was forked
            raise AgentFault("A remote agent takes no part in a fork.")
        step = journal.steps + 1
        started = {"step": step, "name": label, "kind": "remote"}
        yield from journal.commit(then=[(Event.STEP_STARTED, started)])
        seconds = handle.seconds_left()
        token = self._gateway.begin(seconds, most_steps(self._agent, self._run.request))
        exchange = self._deps.client.ask(
            self._task(label, where, messages, resume, token), where.protocol, seconds, where.silence_seconds
        )
        stored = yield from self._heard(exchange, step)
        journal.add_step("remote", label, stored)
        if stored["status"] == "waiting_approval":
            yield from self._suspend(stored)
        return stored

    def _heard(self, exchange: Exchange, step: int) -> Events[dict[str, Any]]:
        """Tell what the agent tells; return its answer as it is stored. Raises why the run must stop."""
        listening = _Listening(self, step)
        try:
            answer = yield from listening.hear(exchange)
        except Exception as error:
            exchange.close(cancelled=self._attempt.handle.reason in ("cancelled", "refused", "timeout"))
            with suppress(LeaseLost, DatabaseUnavailable):
                yield from self._gateway.end()
            if not isinstance(error, FAILURES):
                raise
            self._check_run()
            if refusal := self._gateway.refusal():
                raise refusal from None
            if isinstance(error, AnswerBroken):
                if self._run.losses < MAX_BROKEN:
                    self._give_up()
                raise RemoteFailed(str(error)) from None
            raise
        exchange.close(cancelled=False)
        yield from self._gateway.end()
        if answer.status == "failed":
            self._check_run()
            if refusal := self._gateway.refusal():
                raise refusal
        return stored_answer(answer, listening.output(answer), self._gateway.model)

    def _check_run(self) -> None:
        """Check that the run goes on: its agent may have failed as its calls were refused before this worker knew.

        Raises why the run must stop.
        """
        run, handle = self._run, self._attempt.handle
        owned = self._deps.db.query(lambda tx: ownership.owned_by(tx, run.id, run.attempt))
        if owned is not None and (owned["refused"] or owned["cancel_requested"]):
            handle.stop("refused" if owned["refused"] else "cancelled")
        handle.check()
        self._journal.check_owner()

    def _give_up(self) -> None:
        """Leave the run to its next attempt, which asks again and pays for no kept call. Raises `LeaseLost`."""
        run = self._run
        self._deps.db.transact(lambda tx: run_rows.abandon(tx, run.id, run.attempt))
        raise LeaseLost

    def _task(
        self,
        label: str,
        where: RemoteSpec,
        messages: Sequence[Message],
        resume: dict[str, Any] | None,
        token: str,
    ) -> RemoteTask:
        run, asked, rails = self._run, self._run.request, self._attempt.rails
        context = exact_json.loads(asked.context.encode()) if asked.context else None
        body = {
            "input": rails.json_in(asked.question),
            "messages": list(rails.messages(messages)),
            "context": rails.json_in(context),
            "session_id": asked.session_id,
            "end_user": rails.json_in(asked.end_user),
            "max_tokens": asked.max_tokens or self._agent.max_tokens,
            "effort": asked.effort or self._agent.effort,
            "output_schema": self._attempt.form.schema if self._attempt.form else None,
            "run_id": run.id,
            "attempt": run.attempt,
            "run_token": token,
            "base_url": self._deps.base_url,
            "deadline": rfc3339(now_ms() + int(self._attempt.handle.seconds_left() * 1000)),
            "resume": resume,
            "slipway": rails.json_in(facts_of(self._agent, self._attempt.taint)),
        }
        key = f"{run.id}:{self._journal.branch}:{label}"[:255].replace(" ", "_").replace(",", "")
        return RemoteTask(where.url, key, run.request_id, body, PATIENCE if run.attempt > 1 else 0)

    def _note(self, stored: Mapping[str, Any]) -> None:
        """Record what later steps and the run's result need of an answer."""
        self._attempt.taint.add(SOURCE, stored["output"])
        for source in stored["sources"]:
            self._attempt.taint.add(SOURCE, " ".join(source.values()))
        shown = self._attempt.rails.shown
        self._attempt.tools_used += [
            ToolUse(shown(one["name"]), one["ok"], one["ms"]) for one in stored["tools"]
        ]

    def _suspend(self, stored: Mapping[str, Any]) -> Events[None]:
        """Leave the run waiting for decisions about the agent's questions. Raises `WaitsForApproval`."""
        rows = self._deps.questions.rows(self._attempt, stored)
        for row in rows:
            self._journal.publish_after_commit(Event.APPROVAL_REQUIRED, required(row))
        yield from self._journal.suspend(lambda tx: self._deps.questions.write(tx, self._run, rows))
        raise WaitsForApproval([row["id"] for row in rows])

    def _decided(self, stored: Mapping[str, Any]) -> Events[dict[str, Any]]:
        """Return the decisions for the agent. Raises `WaitsForApproval` while one is missing."""
        found = self._deps.questions.decisions(self._attempt, stored)
        if found.pending:
            yield from self._journal.suspend()
            raise WaitsForApproval(found.pending)
        for data in found.events:
            self._journal.publish_after_commit(Event.APPROVAL_DECIDED, data)
        return {"state": stored["state"], "decisions": found.decisions}

    # --- for `_Listening` ----------------------------------------------------------------------------

    def tell_calls(self) -> Generator[RunEvent]:
        yield from self._gateway.tell()

    def check(self) -> None:
        self._attempt.handle.check()

    def begin_text(self) -> None:
        self._attempt.text.begin(link_hosts(self._agent, self._attempt.taint))

    def write(self, text: str) -> list[RunEvent]:
        return self._unless_refused(self._attempt.text.write(text)) if self._publish else []

    def end_text(self) -> list[RunEvent]:
        return self._unless_refused(self._attempt.text.end()) if self._publish else []

    def _unless_refused(self, events: list[RunEvent]) -> list[RunEvent]:
        """Return events. Raises `GuardrailRefused` where the text is refused: the agent is not listened to further."""
        if self._attempt.text.refused is not None:
            raise self._attempt.text.refused
        return events

    def tool_event(self, step: int, event: RemoteEvent) -> list[RunEvent]:
        """Publish a tool event of the agent, under an id that no other call of the run has."""
        data = {**event.data, "call_id": f"{self._journal.branch}remote_{step}_{event.data['call_id']}"}
        if event.kind == "tool_called":
            return self._journal.publish(Event.TOOL_CALLED, storable_json(data))
        data["preview"] = clean(data["preview"], self._attempt.taint, self._agent)
        return self._journal.publish(Event.TOOL_FINISHED, storable_json(data))


class _Listening:
    """Events of one exchange, on their way into the run."""

    def __init__(self, step: RemoteStep, number: int) -> None:
        self._step, self._number = step, number
        self._text = ""  # told since the last tool call
        self._tool_events = 0
        self._told_calls_at = time.monotonic()

    def hear(self, exchange: Exchange) -> Events[RemoteAnswer]:
        """Tell each event; return the answer, whose text is told by then. Raises why the run must stop."""
        self._step.begin_text()
        for told in exchange.events(PAUSE):
            self._step.check()
            if isinstance(told, RemoteEvent):
                yield from self._event(told)
            elif isinstance(told, RemoteAnswer):
                if told.status == "succeeded" and not self._text:
                    yield from self._step.write(told.output)
                yield from self._step.end_text()
                return told
            if time.monotonic() - self._told_calls_at > TELL_SECONDS:
                yield from self._step.tell_calls()
                self._told_calls_at = time.monotonic()
        raise AssertionError("an exchange ends with an answer, or raises")

    def output(self, answer: RemoteAnswer) -> str:
        """Return the answer's text: what clients were told of it, if that is more than nothing."""
        return self._text or answer.output

    def _event(self, event: RemoteEvent) -> Generator[RunEvent]:
        if event.kind == "text":
            self._text += event.data["text"]
            if len(self._text) > MAX_OUTPUT:
                raise RemoteFailed("The remote agent sent an output that is too long.")
            yield from self._step.write(event.data["text"])
            return
        self._tool_events += 1
        if event.kind == "tool_finished":
            self._text = ""
        if self._tool_events <= MAX_EVENTS:
            yield from self._step.tool_event(self._number, event)


def _answer(stored: Mapping[str, Any]) -> Answer:
    return Answer(
        stored["output"],
        stored["stop_reason"],
        stored["model"],
        sources=tuple(stored["sources"]),
    )
