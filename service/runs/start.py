"""Start of a run, for the API surfaces: wait for its end, stream it, queue it; or answer it from the cache."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

from service.cache.lookup import Lookup, Lookups
from service.errors import NotFound, Overloaded, RateLimited, RunDeleted, SlipwayError
from service.infra.redis import RedisStore
from service.infra.redis_trip import Trip
from service.runs import cached
from service.runs.bulkhead import Bulkhead, Permit
from service.runs.claim import Claim
from service.runs.conflicts import Conflicts
from service.runs.events.outbox import Listener
from service.runs.execution import Execution
from service.runs.guardrails import Guardrails
from service.runs.idempotency import AlreadyStarted, Key
from service.runs.new_run import NewRuns
from service.runs.queries import RunQueries
from service.runs.result import Progress, problem_of, result_of
from service.runs.slots import HandedOver, LeaseLost
from service.runs.stops import AgentStops
from service.types import Caller, Event, Run, RunEvent, RunRequest, RunStatus, now_ms
from service.usage.caps import nano_of
from service.usage.concurrency import ConcurrentRuns, CountedRun
from service.usage.prices import plain_name
from service.usage.savings import Savings

FOLLOW_SECONDS = 2.0  # seconds to wait for an identical run's first event before joining its answer


class Started(NamedTuple):
    """Run for a request: new, or started by an earlier request with the same key."""

    run: Run
    replayed: bool = False
    model_seconds: float = 0.0
    listener: Listener | None = None  # of a stream that executes here
    place: Permit | None = None  # of a stream, until its end is read


Stream = tuple[Started, Generator[list[RunEvent]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarter:
    """Starts runs. One per process. A `trip` that waits to be sent is sent before anything is started.

    Raises `Overloaded` (503) without a free place in `bulkhead`, `AgentStopped` (503), and `RateLimited` (429) at the
    user's limit of concurrent runs.
    """

    new_runs: NewRuns
    lookups: Lookups
    execution: Execution
    queries: RunQueries
    conflicts: Conflicts
    bulkhead: Bulkhead
    concurrent: ConcurrentRuns
    redis_store: RedisStore
    stops: AgentStops
    guardrails: Guardrails
    savings: Savings

    def invoke(
        self, caller: Caller, request: RunRequest, key: Key | None, request_id: str, trip: Trip | None = None
    ) -> Started:
        """Start a run, or join the one with the same key, and wait until it ends or waits for a person."""
        trip = trip or Trip(self.redis_store)
        start = partial(self._invoke, caller, request, key, request_id, trip)
        return self.conflicts.in_turn(caller, request, start)

    def _invoke(
        self, caller: Caller, request: RunRequest, key: Key | None, request_id: str, trip: Trip
    ) -> Started:
        run = self.new_runs.make(caller, request, "wait", request_id)
        with self.claim(caller, run, trip) as claim:
            if claim.lookup.answer is not None:
                return self._answer(run, claim.lookup.answer, key)
            with self.bulkhead.take(run.user_id):
                for _ in self._join(claim.lookup):
                    pass
                if claim.lookup.answer is not None:
                    return self._answer(run, claim.lookup.answer, key)
                return self._execute(run, key, claim)

    def _execute(self, run: Run, key: Key | None, claim: Claim) -> Started:
        """Execute a run in this thread, or wait for the run with the same key."""
        try:
            claim.enter()
            attempt = self.execution.execute(run, self.new_runs.opening(run, key), claim.lookup.stale)
        except AlreadyStarted as first:
            claim.end()
            return self.started_before(first.run_id, self.queries.wait)
        except RateLimited:
            claim.end()
            if (run_id := self.new_runs.started_with(key)) is None:
                raise
            return self.started_before(run_id, self.queries.wait)
        except (LeaseLost, HandedOver):
            claim.leave()
            claim.lookup.run = self.queries.wait(run.id)
            return Started(claim.lookup.run)
        return Started(run, model_seconds=attempt.model_seconds)

    def stream(
        self, caller: Caller, request: RunRequest, key: Key | None, request_id: str, trip: Trip | None = None
    ) -> Stream:
        """Start a run and listen. Raises the reason it cannot begin before the first event.

        The caller must release the place of `Started`, if any, once the stream is no longer read.
        """
        trip = trip or Trip(self.redis_store)
        start = partial(self._stream, caller, request, key, request_id, trip)
        return self.conflicts.in_turn(caller, request, start)

    def _stream(
        self, caller: Caller, request: RunRequest, key: Key | None, request_id: str, trip: Trip
    ) -> Stream:
        run = self.new_runs.make(caller, request, "stream", request_id)
        claim = self.claim(caller, run, trip)
        if claim.lookup.answer is not None:
            return self._stream_own(run, key, claim, Listener())
        with ExitStack() as undo:
            undo.enter_context(claim)
            place = undo.enter_context(self.bulkhead.take(run.user_id))
            started, events = self._stream_own_or_joined(run, key, claim)
            undo.pop_all()
        return started._replace(place=place), events

    def _stream_own_or_joined(self, run: Run, key: Key | None, claim: Claim) -> Stream:
        """Execute the run and stream it; or stream the answer of an identical run."""
        owner, listener = claim.lookup.owner, Listener()
        if owner is None:
            return self._stream_own(run, key, claim, listener)
        if (
            owner.live
            and owner.user_id == run.user_id
            and run.request.asked_as is None
            and (key is None or key.automatic)
            and self.queries.has_begun(owner.run_id, FOLLOW_SECONDS)
        ):
            # The identical run by its own id: it can be resumed from any event, and a disconnect does not end it.
            same = replace(run, id=owner.run_id, request=replace(run.request, on_disconnect="continue"))
            return Started(same), self._told_saved(run, self.queries.follow(owner.run_id))
        return Started(run, listener=listener), self._stream_joined(run, key, claim, listener)

    def queue(
        self, caller: Caller, request: RunRequest, key: Key | None, request_id: str, trip: Trip | None = None
    ) -> Started:
        """Queue a run. Raises `RateLimited` and `Overloaded` where too many are waiting."""
        if trip is not None:
            trip.send()
        try:
            self.new_runs.queue.take(caller.user_id)
        except (RateLimited, Overloaded):
            if (run_id := self.new_runs.started_with(key, seconds=0)) is None:
                raise
            return self.started_before(run_id)
        interrupted = self.conflicts.interrupted_by(request)
        run = self.new_runs.make(caller, request, "queue", request_id)
        run.status, run.attempt, run.started_at = RunStatus.QUEUED, 0, None
        try:
            self.new_runs.open(run, key)
        except AlreadyStarted as first:
            return self.started_before(first.run_id)
        self.conflicts.cancel(interrupted)
        return Started(run)

    def started_before(self, run_id: str, find: Callable[[str], Run] | None = None) -> Started:
        """Find the run that an earlier request started with the same key. Raises `RunDeleted`."""
        try:
            return Started((find or self.queries.get)(run_id), replayed=True)
        except NotFound:
            raise RunDeleted from None

    def claim(self, caller: Caller, run: Run, trip: Trip) -> Claim:
        """Claim a run on what all workers share, by its trip. Raises `GuardrailRefused` for what it asks."""
        agent = self.new_runs.agent_of(run)
        if not run.request.relayed:
            self.guardrails.admit(run, agent)
        workspace = self.guardrails.of_workspace(run.workspace_id)
        apart = f"{workspace.digest} {self.new_runs.trial_of(run)}".strip()
        lookup = self.lookups.begin(caller, run, agent, apart)
        if lookup.asks:  # else the opening of the run shows whether its agent is stopped
            trip.add(self.stops.call(run.agent))
        return Claim(trip, lookup, CountedRun(self.concurrent, run.user_id, run.id))

    def _join(self, lookup: Lookup) -> Generator[None]:
        """Wait for an identical run's answer, at most as long as this run itself may take."""
        seconds = min(self.execution.seconds, self.new_runs.agent_of(lookup.run).limits.seconds)
        yield from lookup.join(self.queries.heartbeat, time.monotonic() + seconds)

    def _answer(self, run: Run, answer: dict[str, Any], key: Key | None) -> Started:
        """Answer a run from the cache. It is stored only if a client's own key, or its door, must find it again."""
        saved = cached.complete(run, answer)
        if (key is not None and not key.automatic) or run.request.asked_as is not None:
            run.last_seq = cached.events_of(run)[-1].seq
            try:
                self.new_runs.open(run, key, partial(cached.write, run=run))
            except AlreadyStarted as first:
                with self.bulkhead.take(run.user_id):
                    return self.started_before(first.run_id, self.queries.wait)
        self._note_saved(run, answer["model"], saved)
        return Started(run)

    def _stream_own(self, run: Run, key: Key | None, claim: Claim, listener: Listener) -> Stream:
        """Stream the cached answer, or execute the run and stream it."""
        if claim.lookup.answer is not None:
            with claim:
                started = self._answer(run, claim.lookup.answer, key)
            if started.replayed:
                return started, self.queries.follow(started.run.id)
            return started, _at_once(cached.events_of(run))
        with ExitStack() as until_end:
            until_end.enter_context(claim)
            try:
                claim.enter()
            except RateLimited:
                if (run_id := self.new_runs.started_with(key)) is None:
                    raise
                return self.started_before(run_id), self.queries.follow(run_id)
            opening = self.new_runs.opening(run, key)
            outbox, execution = self.execution.stream(
                run, opening, until_end.pop_all(), listener, claim.lookup.stale
            )
        try:
            first = next(execution)
        except AlreadyStarted as other:
            return self.started_before(other.run_id), self.queries.follow(other.run_id)
        return Started(run, listener=listener), self.queries.listen(run, outbox, first, execution)

    def _stream_joined(
        self, run: Run, key: Key | None, claim: Claim, listener: Listener
    ) -> Generator[list[RunEvent]]:
        """Wait for an identical run's answer, which comes whole; without one, execute this run."""
        try:
            for _ in self._join(claim.lookup):
                yield []
            _, events = self._stream_own(run, key, claim, listener)
        except SlipwayError as error:  # the stream has begun: report the error as its last event
            run.status, run.finished_at = RunStatus.FAILED, now_ms()
            run.error = problem_of(error, run)
            events = _at_once([RunEvent(Event.RUN_FAILED, result_of(run, None, Progress()), 1)])
        yield from events

    def _told_saved(self, run: Run, batches: Generator[list[RunEvent]]) -> Generator[list[RunEvent]]:
        """Follow an identical run, and count at its end what this one has saved."""
        with closing(batches):
            for events in batches:
                yield events
                if events and events[-1].name is Event.RUN_COMPLETED:
                    result = events[-1].data
                    self._note_saved(run, result["model"], nano_of(result["usage"]["cost_usd"]))

    def _note_saved(self, run: Run, model: str | None, saved: int) -> None:
        """Count what an answer without a call has saved, by its model's name in the ledger, which its agent gives."""
        plain = plain_name(model or "")
        asked = (name for name in self.new_runs.agent_of(run).models if plain_name(name) == plain)
        self.savings.add(run, next(asked, plain), saved)


def _at_once(events: list[RunEvent]) -> Generator[list[RunEvent]]:
    """Yield a complete stream as one batch."""
    yield events
