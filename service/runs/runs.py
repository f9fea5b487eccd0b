"""Runs, as the doors see them: start one and wait, start one and listen, queue one, follow one, cancel one."""

from __future__ import annotations

import contextvars
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal, NamedTuple, TypeVar

import redis

from service.agents.definitions import AgentCatalog, AgentDefinition
from service.errors import NotFound, Overloaded, RunFinished, SessionBusy, SlipwayError, WorkerLost
from service.llm.routing import Router
from service.runs.active import ActiveRuns, HandedOver, Handle, LeaseLost
from service.runs.answers import AnswerCache, Leader, cacheable
from service.runs.flight import Flights, Turn
from service.runs.follow import Follower
from service.runs.idempotency import AlreadyStarted, Key
from service.runs.journal import NOTE, Journal, Opening, Work
from service.runs.live import Channel, ChannelOverflow, LiveReader, Publisher, event_of
from service.runs.result import result_of
from service.runs.runner import MOST_LOSSES, Runner, problem_of
from service.runs.told import Told
from service.sessions import Sessions
from service.store import approvals
from service.store import runs as rows
from service.store.base import Database, Transaction
from service.types import Caller, Event, Run, RunEvent, RunRequest, RunStatus, new_id, now_ms

log = logging.getLogger("slipway.runs")
KEY_SECONDS = 1.0  # how long a request that found no slot looks for the run that its key may stand for
Door = Literal["invoke", "stream", "task"]
T = TypeVar("T")
BEGIN_SECONDS = 2.0  # the longest wait for a leader's first event; who waits longer gets its answer whole


class Started(NamedTuple):
    """A run that was asked for: new, or the one an earlier request with the same key started."""

    run: Run
    replayed: bool = False
    model_seconds: float = 0.0


class Runs:
    """One per process. Bounded by `active`: a run that finds no slot is refused with 503."""

    def __init__(
        self,
        *,
        db: Database,
        catalog: AgentCatalog,
        routers: dict[str, Router],
        runner: Runner,
        active: ActiveRuns,
        publisher: Publisher,
        live: LiveReader,
        answers: AnswerCache,
        flights: Flights,
        sessions: Sessions,
        turns_queue: bool,
        worker_id: str,
        seconds: float,
        heartbeat: float,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._routers = routers
        self._runner = runner
        self._active = active
        self._publisher = publisher
        self._live = live
        self._answers = answers
        self._flights = flights
        self._sessions = sessions
        self._turns_queue = turns_queue
        self._turns = threading.BoundedSemaphore(max(1, active.slots // 8))
        self._worker_id = worker_id
        self._seconds = seconds
        self._heartbeat = heartbeat
        self._draining = draining

    # --- starting ---------------------------------------------------------------------------------

    def agent(self, name: str) -> AgentDefinition:
        """Raises `NotFound`."""
        agent = self._catalog.agents.get(name)
        if agent is None:
            raise NotFound(f"There is no agent named {name}.")
        return agent

    def invoke(self, caller: Caller, request: RunRequest, key: Key | None, request_id: str) -> Started:
        """Start a run, or join the one the key stands for, and wait until it ends or waits for a person."""
        return self._in_turn(lambda: self._invoke(caller, request, key, request_id))

    def _invoke(self, caller: Caller, request: RunRequest, key: Key | None, request_id: str) -> Started:
        run = self._new(caller, request, "invoke", request_id)
        turn = self._turn(caller, run)
        if turn.leader is not None:
            self._active.check_room()
            with self._active.waiting():
                for _ in turn.join(self._heartbeat, self._deadline(run)):
                    pass
        with turn:
            if turn.answer is not None:
                return self._hit(run, turn.answer, key)
            try:
                with self._active.slot(), self._handle(run) as handle:
                    journal = Journal(self._db, run, _nobody, opening=self._opening(run, key))
                    for _ in self._runner.execute(run, journal, handle):
                        pass
            except AlreadyStarted as first:
                turn.end()
                return Started(self._wait(first.run_id), replayed=True)
            except Overloaded:
                turn.end()
                if (run_id := self._under(key)) is None:
                    raise
                return Started(self._wait(run_id), replayed=True)
            except (LeaseLost, HandedOver) as left:
                self._let_go(run, left)
                turn.run = self._wait(run.id)
                return Started(turn.run)
            return Started(run, model_seconds=run.model_seconds)

    def stream(
        self, caller: Caller, request: RunRequest, key: Key | None, request_id: str
    ) -> tuple[Started, Iterator[list[RunEvent]]]:
        """Start a run and listen. Raises what keeps it from beginning before the first event is given."""
        return self._in_turn(lambda: self._stream(caller, request, key, request_id))

    def _stream(
        self, caller: Caller, request: RunRequest, key: Key | None, request_id: str
    ) -> tuple[Started, Iterator[list[RunEvent]]]:
        run = self._new(caller, request, "stream", request_id)
        turn = self._turn(caller, run)
        leader = turn.leader
        if leader is None:
            return self._told(run, key, turn)
        self._active.check_room()
        if (
            leader.live
            and leader.user_id == run.user_id
            and (key is None or key.automatic)
            and self._began(leader)
        ):
            # The same run, by its own id: it can be resumed from anywhere, and one who leaves ends nothing.
            same = replace(run, id=leader.run_id, request=replace(request, on_disconnect="continue"))
            return Started(same), self._alongside(leader)
        return Started(run), self._joined(run, key, turn)

    def queue(
        self, caller: Caller, request: RunRequest, key: Key | None, request_id: str, *works: Work
    ) -> Started:
        """Put a run into the queue; `works` are written with it (a webhook, an announcement after commit)."""
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
            return Started(self.get(first.run_id), replayed=True)
        return Started(run)

    def take_up(self, run_id: str) -> bool:
        """Take a queued or abandoned run and drive it to its end, in this thread. False: it was not to be had."""

        def claim(tx: Transaction) -> Run | None:
            if not rows.claim(tx, run_id, self._worker_id):
                return None
            run = rows.get(tx, run_id)
            if run is not None and not self._sessions.resume(tx, run):
                raise SessionBusy  # it stays in the queue, and is looked at again
            if run is not None and run.losses >= MOST_LOSSES and run.agent not in self._catalog.agents:
                self._give_up(tx, run)
                return None
            return run

        try:
            run = self._db.transact(claim)
        except SessionBusy:
            return False
        if run is None:
            return False
        run.resumed = run.attempt > 1
        channel = self._publisher.open(run.id)
        journal = self._reopened(run, channel)
        with self._handle(run) as handle:
            if run.cancel_requested:
                handle.stop("cancelled")
            self._execute(run, journal, handle, channel)
        return True

    def take_up_in_background(self, run_id: str) -> bool:
        """The same in a thread of its own, if a slot is free."""
        if not self._active.take(request=False):
            return False

        def work() -> None:
            try:
                self.take_up(run_id)
            except Exception:
                log.exception("take_up_failed", extra={"run_id": run_id})
            finally:
                self._active.give()

        threading.Thread(target=work, name=f"take-up-{run_id}", daemon=True).start()
        return True

    # --- watching and stopping --------------------------------------------------------------------

    def get(self, run_id: str, caller: Caller | None = None) -> Run:
        """Raises `NotFound`, for somebody else's run too: only operators see them."""
        owner = caller.user_id if caller is not None and caller.role == "user" else None
        run = self._db.query(lambda tx: rows.get(tx, run_id, user_id=owner))
        if run is None:
            raise NotFound(f"There is no run {run_id}.")
        return run

    def follow(self, run_id: str, after: int = 0) -> Iterator[list[RunEvent]]:
        """Batches of a run's events after number `after`, until the last; empty ones as heartbeats.

        A worker that stops sends its followers elsewhere, with a `reconnect` event.
        """
        for events in self._events(run_id, after):
            yield events
            after = events[-1].seq if events else after
            if self._draining() and not (events and events[-1].name.is_last):
                yield [_reconnect(after)]
                return

    def _events(self, run_id: str, after: int = 0) -> Iterator[list[RunEvent]]:
        return Follower(self._db, self._live, run_id, after).events(self._heartbeat)

    def so_far(self, run_id: str, after: int = 0) -> list[RunEvent]:
        return Follower(self._db, self._live, run_id, after).so_far()

    def cancel(self, run: Run) -> None:
        """Deliver a cancellation: to the thread that drives the run, here or wherever it is.

        Raises `RunFinished` when there is nothing left to cancel.
        """
        waiting = (RunStatus.QUEUED, RunStatus.WAITING_APPROVAL)

        def ask(tx: Transaction) -> bool:
            rows.ask_cancel(tx, run.id)
            fresh = rows.get(tx, run.id)
            assert fresh is not None
            if fresh.status.ended:
                raise RunFinished(f"This run is {fresh.status} already.")
            if fresh.status not in waiting:
                return False
            fresh.status, fresh.finished_at = RunStatus.CANCELLED, now_ms()
            fresh.last_seq += 1
            fresh.result = result_of(fresh, None, steps=0, used=())
            if not rows.close(tx, fresh, waiting):
                return False
            approvals.close(tx, fresh.id)
            self._runner.ended(tx, fresh, None)
            return True

        if not self._db.transact(ask) and (handle := self._active.get(run.id)) is not None:
            handle.stop("cancelled")

    def client_gone(self, run: Run) -> None:
        """The one who listened has gone; the run goes on unless they wanted it cancelled then."""
        handle = self._active.get(run.id)
        if run.request.on_disconnect == "cancel" and handle is not None:
            handle.stop("cancelled")

    # --- inside -----------------------------------------------------------------------------------

    def _new(self, caller: Caller, request: RunRequest, door: Door, request_id: str) -> Run:
        agent = self.agent(request.agent)
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
        worker = self._worker_id if run.door != "task" else None

        def work(tx: Transaction) -> bool:
            if key is not None:
                key.start(tx, run.id)
            wake_at = run.created_at if run.door == "task" else None
            new = rows.insert(tx, run, worker_id=worker, wake_at=wake_at)
            waits = self._turns_queue and run.door == "task"  # its row is in the queue already
            if not self._sessions.begin(tx, run) and not waits:
                raise SessionBusy(retry_after=1)
            return new

        return work

    def _turn(self, caller: Caller, run: Run) -> Turn:
        """Look into the cache, where the agent has one: answered, waiting for another, or to ask the model."""
        agent, request = self.agent(run.agent), run.request
        question = None
        if cacheable(agent, request):
            router = self._routers[agent.id]
            route = router.route(request.tier, request.question, len(agent.tools), agent.bounds)
            question = self._answers.question(agent, request, caller, route.models[0])
        return Turn(self._flights, run, question, agent.cache)

    def _deadline(self, run: Run) -> float:
        """time.monotonic() until which one waits for another's answer: as long as the run itself might take."""
        return time.monotonic() + min(self._seconds, self.agent(run.agent).limits.seconds)

    def _hit(self, run: Run, answer: dict[str, Any], key: Key | None) -> Started:
        """An answer without a run. It is written down only where a client's own key has to find it again."""
        run.status, run.finished_at, run.tier = RunStatus.SUCCEEDED, now_ms(), answer["tier"]
        run.result = {**result_of(run, None, steps=0, used=()), **answer}
        *events, last = _events_of(run)
        run.last_seq = last.seq
        if key is not None and not key.automatic:
            opening = self._opening(run, key)

            def work(tx: Transaction) -> None:
                opening(tx)
                rows.insert_step(tx, _note(run, events))
                rows.record_end(tx, run)

            try:
                self._db.transact(work)
            except AlreadyStarted as first:
                return Started(self._wait(first.run_id), replayed=True)
        return Started(run)

    def _told(self, run: Run, key: Key | None, turn: Turn) -> tuple[Started, Iterator[list[RunEvent]]]:
        """Stream the answer that was found, or drive the run and stream it."""
        if turn.answer is not None:
            with turn:
                started = self._hit(run, turn.answer, key)
            if started.replayed:
                return started, self.follow(started.run.id)
            return started, iter([_events_of(run)])
        if not self._active.take():
            turn.end()
            if (run_id := self._under(key)) is None:
                raise self._active.full()
            return Started(self.get(run_id), replayed=True), self.follow(run_id)
        channel = self._publisher.open(run.id)
        self._drive(run, Journal(self._db, run, channel.put, opening=self._opening(run, key)), channel, turn)
        try:
            first = _first(channel, run)
        except AlreadyStarted as other:
            return Started(self.get(other.run_id), replayed=True), self.follow(other.run_id)
        return Started(run), self._listen(run, channel, first)

    def _under(self, key: Key | None) -> str | None:
        """The run a key stands for, when it is started: requests with one key may fill every slot of a worker
        before the first of them is written down, and all the others need none."""
        end = time.monotonic() + KEY_SECONDS
        while key is not None and time.monotonic() < end:
            if (run_id := self._db.query(key.started)) is not None:
                return run_id
            time.sleep(0.05)
        return None

    def _joined(self, run: Run, key: Key | None, turn: Turn) -> Iterator[list[RunEvent]]:
        """Wait for another's answer, which comes whole; or drive the run after all, when that came to nothing."""
        try:
            with self._active.waiting():
                for _ in turn.join(self._heartbeat, self._deadline(run)):
                    yield []
            _, events = self._told(run, key, turn)
        except SlipwayError as error:  # the stream has begun: its last event says so
            run.status, run.finished_at = RunStatus.FAILED, now_ms()
            run.error = problem_of(error, run)
            events = iter([[RunEvent(Event.RUN_FAILED, result_of(run, None, steps=0, used=()), 1)]])
        yield from events

    def _began(self, leader: Leader) -> bool:
        """Whether a leader's events can be followed: it is in the database once it has told its first."""
        try:
            return bool(self._live.read(leader.run_id, b"0", BEGIN_SECONDS))
        except redis.RedisError:
            return False

    def _alongside(self, leader: Leader) -> Iterator[list[RunEvent]]:
        with self._active.waiting():
            yield from self.follow(leader.run_id)

    def _handle(self, run: Run) -> AbstractContextManager[Handle]:
        return self._active.driving(Handle(run.id, self._seconds))

    def _drive(self, run: Run, journal: Journal, channel: Channel, turn: Turn) -> None:
        """Drive a run in a thread of its own, which outlives the connection that asked for it."""

        def work() -> None:
            try:
                with turn, self._handle(run) as handle:
                    self._execute(run, journal, handle, channel)
            finally:
                self._active.give()

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), name=f"run-{run.id}", daemon=True).start()

    def _execute(self, run: Run, journal: Journal, handle: Handle, channel: Channel) -> None:
        try:
            for _ in self._runner.execute(run, journal, handle):
                pass
        except (LeaseLost, HandedOver) as left:
            self._let_go(run, left)
        except (AlreadyStarted, SlipwayError) as error:
            channel.fail(error)
        except Exception as error:
            log.exception("run_thread_failed", extra={"run_id": run.id})
            channel.fail(error)
        finally:
            channel.close()

    def _reopened(self, run: Run, channel: Channel) -> Journal:
        """The journal of a run taken up: what is kept, and what clients were told beyond it."""
        kept = self._db.query(lambda tx: rows.kept_steps(tx, run.id))
        kept_seq = max((row["last_seq"] for row in kept if row["kind"] != "note"), default=0)
        live = self._live.told(run.id, kept_seq) if run.door != "invoke" else []
        # The last attempt stopped by itself, so all that it told is kept.
        waited = bool(kept) and (kept[-1]["kind"], kept[-1]["attempt"]) == (NOTE, run.attempt - 1)
        lost = live is None and run.resumed and not waited
        noted = [event_of(item) for row in kept for item in row["events"] if item[0] > kept_seq]
        told = {event.seq: event for event in (*noted, *(live or ()))}
        return Journal(
            self._db, run, channel.put, kept=kept, told=Told(list(told.values()), kept_seq, lost=lost)
        )

    def _give_up(self, tx: Transaction, run: Run) -> None:
        """The end of a run that nobody can drive, because its agent is gone."""
        run.status, run.finished_at = RunStatus.FAILED, now_ms()
        run.last_seq += 1
        run.error = problem_of(WorkerLost(f"There is no agent named {run.agent} any more."), run)
        run.result = result_of(run, None, steps=0, used=())
        rows.close(tx, run, (RunStatus.RUNNING,))
        self._runner.ended(tx, run, None)

    def _let_go(self, run: Run, left: Exception) -> None:
        """A run that this worker hands over goes back into the queue; one that was taken is not ours to touch."""
        if isinstance(left, HandedOver):
            self._db.transact(lambda tx: rows.release(tx, run.id, run.attempt, now_ms()))

    def _wait(self, run_id: str) -> Run:
        """Until a run ends or waits for a person, wherever it is driven."""
        for _ in self._events(run_id):
            run = self.get(run_id)
            if run.status is RunStatus.WAITING_APPROVAL:
                run.result = result_of(run, None, steps=0, used=())
            if run.result is not None:
                return run
        return self.get(run_id)

    def _in_turn(self, start: Callable[[], T]) -> T:
        """`start`; while its session is busy again and again, where turns queue. Raises `SessionBusy`."""
        end, pause = time.monotonic() + self._seconds, 0.05
        while True:
            try:
                return start()
            except SessionBusy:
                if not self._turns_queue or time.monotonic() + pause > end:
                    raise
                if not self._turns.acquire(blocking=False):  # the threads that wait must stay few
                    raise
            try:
                time.sleep(pause * random.uniform(0.7, 1.0))
            finally:
                self._turns.release()
            pause = min(pause * 1.5, 1.0)

    def _listen(self, run: Run, channel: Channel, first: list[RunEvent]) -> Iterator[list[RunEvent]]:
        events, seen = first, 0
        while True:
            if events:
                seen = events[-1].seq
            yield events
            if events and events[-1].name.is_last:
                return
            if channel.done:  # it waits for a person, or goes on elsewhere
                break
            try:
                events = channel.get(self._heartbeat)
            except ChannelOverflow:
                break
        if self._draining():
            yield [_reconnect(seen)]
        else:
            yield from self.follow(run.id, seen)


def _reconnect(after: int) -> RunEvent:
    """The run goes on elsewhere: ask again with this number as `Last-Event-ID`."""
    return RunEvent(Event.RECONNECT, {"last_seq": after}, after)


def _first(channel: Channel, run: Run) -> list[RunEvent]:
    """The first events of a new run, or what kept it from beginning."""
    while not (events := channel.get(60.0)):
        if channel.done:
            raise WorkerLost(f"The run {run.id} did not begin.")
    return events


def _events_of(run: Run) -> list[RunEvent]:
    """What a stream tells of an answer that is there at once."""
    assert run.result is not None
    started = {"run_id": run.id, "agent": run.agent, "session_id": run.request.session_id}
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


def _nobody(events: Sequence[RunEvent]) -> None:
    """An invoked run has no listener while it goes on."""
