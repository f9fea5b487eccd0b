"""Runner: the only loop over a pattern. Yields a run's events, and always ends with a last one."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.agents.catalog import AgentCatalog
from service.agents.definitions import AgentDefinition
from service.agents.pattern import Context, Events, PatternModule
from service.cache.entries import MODEL_AWAY
from service.errors import (
    AgentFault,
    AgentStopped,
    DatabaseUnavailable,
    NotFound,
    RunCancelled,
    SlipwayError,
    WorkerLost,
)
from service.observe import logs
from service.observe.observer import Observer, RunPhase
from service.runs.attempt import Attempt
from service.runs.batch.steps import WaitsForBatch
from service.runs.billing import book_later
from service.runs.budget_waits import BudgetWaits
from service.runs.client_tools import CallsClient
from service.runs.conversation import conversation
from service.runs.forked import guarded_today, prepare
from service.runs.gateway_steps import book_untold
from service.runs.guardrail_events import flag_input
from service.runs.guardrails import Guardrails
from service.runs.idempotency import AlreadyStarted
from service.runs.judge import judge_question, tell_judged
from service.runs.output_form import OutputForm
from service.runs.relay_step import RelayDependencies, RelayStep
from service.runs.result import Progress, lost_calls, problem_of, result_of, started_of
from service.runs.slots import HandedOver, LeaseLost
from service.runs.steps import RunSteps, StepDependencies
from service.runs.structured import structured
from service.runs.tool_execution import WaitsForApproval
from service.runs.tree_steps import TreeSteps
from service.runs.turn import system_of
from service.runs.untrusted import answer_without_links, noting
from service.sessions import Sessions
from service.store import runs as rows
from service.store.database import Transaction
from service.text.sanitise import storable_json
from service.types import LAST_EVENT, Answer, Event, RunEvent, RunStatus
from service.webhooks import Webhooks

MAX_LOSSES = 3  # workers that may die while executing a run before it fails


@dataclass(slots=True)
class Runner:
    """Executes runs; stateless between them."""

    catalog: AgentCatalog
    patterns: Mapping[str, PatternModule]
    steps: StepDependencies
    observer: Observer
    sessions: Sessions
    webhooks: Webhooks
    waits: BudgetWaits
    relay: RelayDependencies
    guardrails: Guardrails

    def execute(self, attempt: Attempt) -> Iterator[RunEvent]:
        """Yield every event of this attempt, including the last.

        Raises a `SlipwayError` when the run could not begin (without a trace), and `DatabaseUnavailable` also when a
        run that has begun cannot be stored: another attempt continues it. Ends without a last event when the run waits
        for an approval, a batch, money or the release of its agent; raises `HandedOver` or `LeaseLost` when it leaves
        this worker.
        """
        run = attempt.run
        logs.bind(request_id=run.request_id, user=run.user_id, run_id=run.id, agent=run.agent)
        agent = self.catalog.find(run.agent, run.agent_version)
        if agent is None:
            yield from self._without_agent(attempt)
        else:
            run.agent_version = agent.version  # differs only if the original version is long gone
            yield from self._execute(agent, attempt)

    def _execute(self, agent: AgentDefinition, attempt: Attempt) -> Generator[RunEvent]:
        run, journal = attempt.run, attempt.journal
        attempt.handle.limit(agent.limits.seconds, agent.limits.model_seconds)
        self.observer.run(run, "started")
        try:
            yield from self._begin(attempt)
            yield from self._settle_lost_calls(attempt)
            if run.losses >= MAX_LOSSES:
                raise WorkerLost(f"{run.losses} workers ended while they executed this run.")
            attempt.handle.check()
            current = self.catalog.agents.get(run.agent)
            self.guardrails.begin(attempt, guarded_today(agent, current, run))
            agent = prepare(self.steps.remote.db, self.steps.tool_execution.permitted(agent, run), attempt)
            agent = self.steps.documents.of(agent, run, journal)
            attempt.form = OutputForm.of(agent, run.request)
            attempt.text.held = attempt.form is not None or attempt.rails.judges_output
            steps = TreeSteps(self.steps, agent, attempt, self.catalog, self.patterns)
            messages = yield from conversation(self.sessions, agent, attempt, steps)
            yield from judge_question(attempt, steps)
            system, reader = system_of(agent, run.request), noting(agent, attempt.taint)
            context = Context(reader, run.request, messages, system, steps)
            answer = yield from self._answer(context, attempt, steps)
            yield from self._end(attempt, RunStatus.SUCCEEDED, answer=answer)
        except (WaitsForApproval, WaitsForBatch, AgentStopped) as reason:
            yield from self._leave_waiting(attempt, reason)
        except (LeaseLost, HandedOver) as released:
            self.observer.run(run, "released", released)
            raise
        except (AlreadyStarted, DatabaseUnavailable):
            # Another run has its key, and this one has left no trace; or it goes on once the database is back.
            raise
        except SlipwayError as error:
            yield from self._refused(attempt, error)
        except Exception as error:
            self.observer.run(run, "failed", error)
            if not journal.opened:
                raise
            yield from self._end(attempt, RunStatus.FAILED, error=AgentFault())
        finally:
            self.observer.run(run, "over")

    def _answer(self, context: Context, attempt: Attempt, steps: RunSteps) -> Events[Answer]:
        """Run the pattern, and give its answer its form. Calls of the client's tools are an answer without one."""
        if context.request.relayed:
            return attempt.rails.answer((yield from RelayStep(self.relay, attempt).ask()))
        agent = context.agent
        try:
            answer = yield from self.patterns[agent.pattern].run(context)
            answer = attempt.rails.answer(answer_without_links(answer, attempt.taint, agent), attempt.form)
            return (yield from structured(answer, attempt, steps, agent))
        except CallsClient as called:
            return (yield from tell_judged(attempt.rails.answer(called.answer(agent.marker)), attempt, steps))

    def _leave_waiting(
        self, attempt: Attempt, reason: WaitsForApproval | WaitsForBatch | AgentStopped
    ) -> Generator[RunEvent]:
        """Leave a run that waits, held by no worker. Raises `AgentStopped` for one that has not begun."""
        run, journal = attempt.run, attempt.journal
        if isinstance(reason, WaitsForBatch):
            self.observer.run(run, "waits_for_batch")
            return
        approvals: Sequence[str] = ()
        if isinstance(reason, WaitsForApproval):
            approvals = reason.approvals
        elif journal.opened:
            yield from journal.leave(RunStatus.PAUSED, rows.pause)
        else:
            raise reason
        self._left(attempt, "waits_for_approval" if approvals else "paused", approvals)

    def _refused(self, attempt: Attempt, error: SlipwayError) -> Generator[RunEvent]:
        """End a run by its error, or leave it waiting for room under a cap. Raises the error of one without a trace."""
        wait = self.waits.wait_of(attempt, error)
        if wait is not None:
            yield from self.waits.leave(attempt, wait, error)
            self._left(attempt, "waits_for_budget")
        elif attempt.journal.opened:
            yield from self._failed(attempt, error)
        else:
            raise error

    def _left(self, attempt: Attempt, phase: RunPhase, approvals: Sequence[str] = ()) -> None:
        run, journal = attempt.run, attempt.journal
        progress = Progress.of_events(journal.events.for_result, journal.known_steps)
        run.result = result_of(run, None, progress, approvals)
        self.observer.run(run, phase)

    def _without_agent(self, attempt: Attempt) -> Generator[RunEvent]:
        """End a run whose agent is gone, once it has lost the maximum of workers.

        Raises `NotFound` before that: another worker may have the agent.
        """
        run = attempt.run
        if run.cancel_requested:
            yield from self._failed(attempt, RunCancelled())
        elif run.losses >= MAX_LOSSES:
            yield from self._failed(attempt, WorkerLost(f"There is no agent named {run.agent} any more."))
        else:
            raise NotFound(f"There is no agent named {run.agent}.")

    def _begin(self, attempt: Attempt) -> Generator[RunEvent]:
        run, journal = attempt.run, attempt.journal
        started = started_of(run)
        if run.resumed:
            if (
                journal.events.resumes_after == 0
            ):  # no published event is valid: clients may not know that it began
                yield from journal.publish(Event.RUN_STARTED, started)
            resumed = {"from_seq": journal.events.resumes_after, "agent_version": run.agent_version}
            yield from journal.publish(Event.RUN_RESUMED, resumed)
        else:
            # Otherwise it is stored with the hold for its first step, or does not begin if nothing can be held.
            if (run.request.session_id is not None or run.request.files) and not journal.opened:
                yield from journal.commit()  # a turn claims its session before reading it; files are read from there
            journal.publish_after_commit(Event.RUN_STARTED, started)
            flag_input(attempt, self.observer)

    def _settle_lost_calls(self, attempt: Attempt) -> Generator[RunEvent]:
        """Settle, at their worst, calls of earlier attempts whose workers died, as their outcome is unknown.

        First of all, as the run may end without another call; each in a transaction of its own, which locks the
        counters of one hold.
        """
        if attempt.run.attempt > 1:
            for settlement in self.steps.spending.settle_lost(attempt.run):
                book_later(attempt.journal, settlement)
                yield from attempt.journal.commit()

    def _failed(self, attempt: Attempt, error: SlipwayError) -> Generator[RunEvent]:
        """End a run without an answer, or with a stale one.

        The stale answer is used if there is one, clients have no text yet, and the model is unavailable.
        """
        run, stale = attempt.run, attempt.stale_answer
        if stale is not None and isinstance(error, MODEL_AWAY) and not attempt.text.deltas:
            run.cache = "stale"
            answer = Answer(
                **{name: stale[name] for name in ("output", "stop_reason", "model", "tier", "structured")},
                sources=tuple(stale["sources"]),
            )
            yield from attempt.text.tell(answer.output)
            yield from self._end(attempt, RunStatus.SUCCEEDED, answer=answer)
            return
        status = RunStatus.CANCELLED if isinstance(error, RunCancelled) else RunStatus.FAILED
        yield from self._end(attempt, status, error=error)

    def _end(
        self,
        attempt: Attempt,
        status: RunStatus,
        *,
        answer: Answer | None = None,
        error: SlipwayError | None = None,
    ) -> Generator[RunEvent]:
        run, journal = attempt.run, attempt.journal

        def last() -> tuple[Event, dict[str, Any]]:
            run.error = attempt.rails.shown(problem_of(error, run)) if error is not None else None
            run.result = _result(attempt, answer)
            return LAST_EVENT[status], run.result

        def write(tx: Transaction) -> None:
            self.sessions.end(tx, run, attempt.summary, **attempt.rails.of_session())
            self.webhooks.schedule(tx, run)

        if run.attempt > 1:
            book_untold(self.steps.remote.db, attempt)
        # An attempt that fails early has not found again what earlier ones held.
        run.untrusted = None if run.resumed and answer is None else attempt.taint.sources
        if answer is None:
            if run.attempt > 1:
                claims = self.steps.tool_execution.claims(run)
                attempt.lost_calls = lost_calls(claims, journal.events.for_result)
            journal.make_storable()  # the failure may be due to text that cannot be stored
        else:
            if not journal.opened:  # an answer without a step
                yield from journal.commit()
            if answer.untold:
                attempt.text.write_after_commit(answer.untold)
        yield from journal.finish(status, last, write)
        self.observer.run(run, "ended")
        if attempt.text.first_at is not None and not run.resumed:
            self.observer.first_text(run.agent, (attempt.text.first_at - run.created_at) / 1000)


def _result(attempt: Attempt, answer: Answer | None) -> dict[str, Any]:
    run, journal, clamped = attempt.run, attempt.journal, attempt.clamped
    if answer is not None:
        return result_of(run, answer, Progress(journal.all_steps, attempt.tools_used, clamped=clamped))
    progress = Progress.of_events(journal.events.for_result, journal.known_steps, clamped)
    progress = progress._replace(tools=[*progress.tools, *attempt.lost_calls])
    stored: dict[str, Any] = storable_json(result_of(run, None, progress))
    return stored
