"""How a run begins, as the doors ask for it: wait for it, listen to it, queue it; or answer it from the cache."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, NamedTuple

from service.agents.catalog import AgentCatalog
from service.agents.definitions import AgentDefinition
from service.cache.answers import AnswerCache
from service.cache.lookup import Lookup
from service.cache.single_flight import SingleFlight
from service.errors import Invalid, NotFound, RateLimited, SessionBusy, SlipwayError
from service.runs.bulkhead import Bulkhead, Permit
from service.runs.conflicts import Conflicts
from service.runs.events.outbox import Listener
from service.runs.execution import Execution
from service.runs.idempotency import AlreadyStarted, Key
from service.runs.journal import NOTE, Opening, WriteInTransaction
from service.runs.queries import RunQueries
from service.runs.result import result_of, started_of
from service.runs.runner import problem_of
from service.runs.slots import HandedOver, LeaseLost
from service.sessions import Sessions
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.database import Database, Transaction
from service.types import Caller, Event, Run, RunEvent, RunRequest, RunStatus, new_id, now_ms
from service.usage.concurrency import ConcurrentRuns

KEY_SECONDS = 1.0  # how long a request that may not start a run looks for the one that its key may stand for
BEGIN_SECONDS = 2.0  # the longest wait for a leader's first event; who waits longer gets its answer whole


class Started(NamedTuple):
    """A run that was asked for: new, or the one an earlier request with the same key started."""

    run: Run
    replayed: bool = False
    model_seconds: float = 0.0
    listener: Listener | None = None  # to a stream that is driven here
    place: Permit | None = None  # of a stream, until it is read to its end


class RunStarter:
    """One per process. A request that finds no place in `places` is refused with 503, a user with as many runs under
    way as `concurrent` allows with 429."""

    def __init__(
        self,
        *,
        db: Database,
        catalog: AgentCatalog,
        bulkhead: Bulkhead,
        concurrent: ConcurrentRuns,
        execution: Execution,
        queries: RunQueries,
        answers: AnswerCache,
        single_flight: SingleFlight,
        sessions: Sessions,
        conflicts: Conflicts,
        seconds: float,
        heartbeat: float,
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._bulkhead = bulkhead
        self._concurrent = concurrent
        self._execution = execution
        self._queries = queries
        self._answers = answers
        self._single_flight = single_flight
        self._sessions = sessions
        self._conflicts = conflicts
        self._seconds = seconds
        self._heartbeat = heartbeat

    def agent(self, name: str) -> AgentDefinition:
        """Raises `NotFound`."""
        agent = self._catalog.agents.get(name)
        if agent is None:
            raise NotFound(f"There is no agent named {name}.")
        return agent

    def _agent_of(self, run: Run) -> AgentDefinition:
        """In the version that the run began with. Raises `NotFound`."""
        return self._catalog.find(run.agent, run.agent_version) or self.agent(run.agent)

    def invoke(self, caller: Caller, request: RunRequest, key: Key | None, request_id: str) -> Started:
        """Start a run, or join the one the key stands for, and wait until it ends or waits for a person."""
        return self._conflicts.in_turn(
            caller, request, lambda: self._invoke(caller, request, key, request_id)
        )

    def _invoke(self, caller: Caller, request: RunRequest, key: Key | None, request_id: str) -> Started:
        run = self._new(caller, request, "invoke", request_id)
        with self._turn(caller, run) as turn:
            if turn.answer is not None:
                return self._hit(run, turn.answer, key)
            with self._bulkhead.take(run.user_id):
                for _ in turn.join(self._heartbeat, self._deadline(run)):
                    pass
                if turn.answer is not None:
                    return self._hit(run, turn.answer, key)
                return self._driven(run, key, turn)

    def _driven(self, run: Run, key: Key | None, turn: Lookup) -> Started:
        """Drive a run in this thread, or wait for the one that its key stands for."""
        try:
            with self._concurrent.counted(run.user_id, run.id):
                self._execution.here(run, self._opening(run, key))
        except AlreadyStarted as first:
            turn.end()
            return Started(self._queries.wait(first.run_id), replayed=True)
        except RateLimited:
            turn.end()
            if (run_id := self._under(key)) is None:
                raise
            return Started(self._queries.wait(run_id), replayed=True)
        except (LeaseLost, HandedOver):
            turn.run = self._queries.wait(run.id)
            return Started(turn.run)
        return Started(run, model_seconds=run.model_seconds)

    def stream(
        self, caller: Caller, request: RunRequest, key: Key | None, request_id: str
    ) -> tuple[Started, Generator[list[RunEvent]]]:
        """Start a run and listen. Raises what keeps it from beginning before the first event is given.

        The place of `Started`, where there is one, is the caller's to give back once nothing reads any more.
        """
        return self._conflicts.in_turn(
            caller, request, lambda: self._stream(caller, request, key, request_id)
        )

    def _stream(
        self, caller: Caller, request: RunRequest, key: Key | None, request_id: str
    ) -> tuple[Started, Generator[list[RunEvent]]]:
        run = self._new(caller, request, "stream", request_id)
        turn = self._turn(caller, run)
        if turn.answer is not None:
            return self._told(run, key, turn, Listener())
        with ExitStack() as undo:
            undo.callback(turn.end)
            place = undo.enter_context(self._bulkhead.take(run.user_id))
            started, events = self._listened(run, key, turn)
            undo.pop_all()
        return started._replace(place=place), events

    def _listened(self, run: Run, key: Key | None, turn: Lookup) -> tuple[Started, Generator[list[RunEvent]]]:
        """Drive the run and stream it; or stream what another run that asks the same comes to."""
        leader, listener = turn.leader, Listener()
        if leader is None:
            return self._told(run, key, turn, listener)
        if (
            leader.live
            and leader.user_id == run.user_id
            and (key is None or key.automatic)
            and self._queries.began(leader.run_id, BEGIN_SECONDS)
        ):
            # The same run, by its own id: it can be resumed from anywhere, and one who leaves ends nothing.
            same = replace(run, id=leader.run_id, request=replace(run.request, on_disconnect="continue"))
            return Started(same), self._queries.follow(leader.run_id)
        return Started(run, listener=listener), self._joined(run, key, turn, listener)

    def queue(
        self,
        caller: Caller,
        request: RunRequest,
        key: Key | None,
        request_id: str,
        *works: WriteInTransaction,
    ) -> Started:
        """Put a run into the queue; `works` are written with it (a webhook, an announcement after commit)."""
        interrupted = self._conflicts.interrupted_by(request)
        run = self._new(caller, request, "task", request_id)
        run.status, run.attempt, run.started_at = RunStatus.QUEUED, 0, None
        opening = self._opening(run, key)

        def work(tx: Transaction) -> None:
            opening(tx)
            for more in works:
                more(tx)

        try:
            self._db.transact(work)
        except AlreadyStarted as first:
            return Started(self._queries.get(first.run_id), replayed=True)
        self._conflicts.cancel(interrupted)
        return Started(run)

    def _new(self, caller: Caller, request: RunRequest, door: str, request_id: str) -> Run:
        """Raises `NotFound`, and `Invalid` for more steps than the agent takes."""
        agent = self.agent(request.agent)
        if caller.scopes and request.session_id is not None:  # another agent's is 404, and not named
            self._sessions.get(caller, request.session_id, own=True)
        if request.max_steps is not None and request.max_steps > agent.limits.steps:
            detail = f"The agent {agent.id} takes {agent.limits.steps} steps at most."
            raise Invalid(detail, errors=[{"pointer": "/max_steps", "detail": detail}])
        return Run(
            id=new_id("run"),
            user_id=caller.user_id,
            key_id=caller.key_id,
            agent=agent.id,
            agent_version=agent.version,
            door=door,
            request=request,
            request_id=request_id,
            attempt=1,
            started_at=now_ms(),
        )

    def _opening(self, run: Run, key: Key | None) -> Opening:
        worker = self._execution.worker_id if run.mode != "queue" else None

        def work(tx: Transaction) -> bool:
            if key is not None:
                key.start(tx, run.id)
            wake_at = run.created_at if run.mode == "queue" else None
            new = rows.insert(tx, run, worker_id=worker, wake_at=wake_at)
            waits = (
                run.mode == "queue" and self._conflicts.settled(run.request) != "reject"
            )  # it is queued already
            if not self._sessions.begin(tx, run) and not waits:
                raise SessionBusy(retry_after=1)
            return new

        return work

    def _turn(self, caller: Caller, run: Run) -> Lookup:
        """Look into the cache, where the agent has one: answered, waiting for another, or to ask the model."""
        agent, request = self._agent_of(run), run.request
        question = None
        if self._answers.takes(agent, request):
            route = agent.router.route(request.tier, request.question, len(agent.tools), agent.bounds)
            question = self._answers.question(agent, request, caller, route.models[0])
        return Lookup(self._single_flight, run, question, agent.cache)

    def _deadline(self, run: Run) -> float:
        """time.monotonic() until which one waits for another's answer: as long as the run itself might take."""
        return time.monotonic() + min(self._seconds, self._agent_of(run).limits.seconds)

    def _hit(self, run: Run, answer: dict[str, Any], key: Key | None) -> Started:
        """An answer without a run. It is written down only where a client's own key has to find it again."""
        run.status, run.finished_at, run.tier = RunStatus.SUCCEEDED, now_ms(), answer["tier"]
        run.result = {**result_of(run, None, steps=0, used=()), **answer}
        if key is not None and not key.automatic:
            *events, last = _events_of(run)
            run.last_seq = last.seq
            opening = self._opening(run, key)

            def work(tx: Transaction) -> None:
                opening(tx)
                step_rows.insert(tx, _note(run, events))
                rows.record_end(tx, run)

            try:
                self._db.transact(work)
            except AlreadyStarted as first:
                with self._bulkhead.take(run.user_id):
                    return Started(self._queries.wait(first.run_id), replayed=True)
        return Started(run)

    def _told(
        self, run: Run, key: Key | None, turn: Lookup, listener: Listener
    ) -> tuple[Started, Generator[list[RunEvent]]]:
        """Stream the answer that was found, or drive the run and stream it."""
        if turn.answer is not None:
            with turn:
                started = self._hit(run, turn.answer, key)
            if started.replayed:
                return started, self._queries.follow(started.run.id)
            return started, _whole(_events_of(run))
        with ExitStack() as until_its_end:
            until_its_end.enter_context(turn)
            try:
                until_its_end.enter_context(self._concurrent.counted(run.user_id, run.id))
            except RateLimited:
                if (run_id := self._under(key)) is None:
                    raise
                return Started(self._queries.get(run_id), replayed=True), self._queries.follow(run_id)
            opening = self._opening(run, key)
            channel, driven = self._execution.listened(run, opening, until_its_end.pop_all(), listener)
        try:
            first = next(driven)
        except AlreadyStarted as other:
            return Started(self._queries.get(other.run_id), replayed=True), self._queries.follow(other.run_id)
        return Started(run, listener=listener), self._queries.listen(run, channel, first, driven)

    def _under(self, key: Key | None) -> str | None:
        """Look for the run that a key stands for: of many requests with one key, as many as a user may have runs at
        once are counted before the first of them is written down."""
        end = time.monotonic() + KEY_SECONDS
        while key is not None:
            if (run_id := self._db.query(key.started)) is not None:
                return run_id
            if key.automatic or time.monotonic() > end:  # a load balancer sends it one after the other
                return None
            time.sleep(0.05)
        return None

    def _joined(
        self, run: Run, key: Key | None, turn: Lookup, listener: Listener
    ) -> Generator[list[RunEvent]]:
        """Wait for another's answer, which comes whole; or drive the run after all, when that came to nothing."""
        try:
            for _ in turn.join(self._heartbeat, self._deadline(run)):
                yield []
            _, events = self._told(run, key, turn, listener)
        except SlipwayError as error:  # the stream has begun: its last event says so
            run.status, run.finished_at = RunStatus.FAILED, now_ms()
            run.error = problem_of(error, run)
            events = _whole([RunEvent(Event.RUN_FAILED, result_of(run, None, steps=0, used=()), 1)])
        yield from events


def _whole(events: list[RunEvent]) -> Generator[list[RunEvent]]:
    """A stream that is there at once."""
    yield events


def _events_of(run: Run) -> list[RunEvent]:
    """What a stream tells of an answer that is there at once."""
    assert run.result is not None
    started = started_of(run)
    told: list[tuple[Event, dict[str, Any]]] = [(Event.RUN_STARTED, started)]
    if run.result["output"]:
        told.append((Event.TEXT_DELTA, {"text": run.result["output"]}))
    told.append((Event.RUN_COMPLETED, run.result))
    return [RunEvent(name, data, seq) for seq, (name, data) in enumerate(told, 1)]


def _note(run: Run, events: Sequence[RunEvent]) -> dict[str, Any]:
    """The step row that keeps the events of a run which was answered without being driven."""
    return {
        "run_id": run.id,
        "n": 1,
        "kind": NOTE,
        "name": run.cache,
        "attempt": run.attempt,
        "reply": {},
        "cost_nano": 0,
        "started_at": run.created_at,
        "finished_at": run.finished_at,
        "events": [[event.seq, event.name, event.data] for event in events],
        "first_seq": 1,
        "last_seq": events[-1].seq,
    }
