"""Start of runs that relay one model call: from the cache of relayed answers, by an idempotency key, or anew."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import NamedTuple

from service.cache.relayed import RelayedAnswers, RelayedLookup
from service.errors import Conflict, GuardrailRefused, RateLimited
from service.infra.redis_trip import Trip
from service.runs.idempotency import AlreadyStarted, Key
from service.runs.relayed_call import RelayedCall
from service.runs.start import RunStarter, Started
from service.types import Caller, Run, RunRequest, mode_of


class Relay(NamedTuple):
    """Answer of a relayed run on its way: its run has ended once all `pieces` are read. `close` stops it before."""

    started: Started
    pieces: Iterator[bytes]
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class RelayStarter:
    """Starts runs that relay. One per process."""

    runs: RunStarter
    answers: RelayedAnswers

    def relay(
        self,
        caller: Caller,
        request: RunRequest,
        key: Key | None,
        request_id: str,
        trip: Trip,
        relayed: RelayedCall,
    ) -> Relay:
        """Start a run that relays one model call; the first piece of the answer has arrived when this returns.

        An earlier run with the same key is waited for, and its answer given again. Raises as `RunStarter`, the reason
        it cannot begin, and `Conflict` for an answer that was too long to be kept.
        """
        runs = self.runs
        run = runs.new_runs.make(caller, request, mode_of(request.door or ""), request_id)
        relayed.kept = key is not None
        lookup = self._look_up(caller, run, relayed, key, trip)
        with ExitStack() as until_end:
            claim = until_end.enter_context(runs.claim(caller, run, trip))
            if lookup is not None:
                run.cache = lookup.cache
                if lookup.answer is not None:
                    runs.savings.add(run, relayed.request.model, lookup.cost)
                    return Relay(Started(run), iter((lookup.answer,)))
            until_end.enter_context(runs.bulkhead.take(run.user_id))
            try:
                claim.enter()
            except RateLimited:
                if (run_id := runs.new_runs.started_with(key)) is None:
                    raise
                return self._relayed_before(run_id)
            opening = runs.new_runs.opening(run, key)
            pieces = runs.execution.relay(run, opening, relayed, until_end.pop_all())
        told = pieces if lookup is None else self.answers.recorded(lookup, run, pieces)
        try:
            first = next(told, None)
        except AlreadyStarted as other:
            with runs.bulkhead.take(run.user_id):
                return self._relayed_before(other.run_id)
        except GuardrailRefused as error:
            runs.guardrails.note_refusal(run, error)
            raise
        return Relay(Started(run), itertools.chain(() if first is None else (first,), told), pieces.close)

    def _look_up(
        self, caller: Caller, run: Run, relayed: RelayedCall, key: Key | None, trip: Trip
    ) -> RelayedLookup | None:
        """Begin the look-up of a call that asks for it; a client's own key has answers of its own."""
        if key is not None and not key.automatic:
            return None
        rails = self.runs.guardrails.of_workspace(run.workspace_id)
        lookup = self.answers.look_up(caller, relayed.request, relayed.freshness, rails.digest)
        if lookup is not None and lookup.call is not None:
            trip.add(self.runs.stops.call(run.agent), lookup.call)
        return lookup

    def _relayed_before(self, run_id: str) -> Relay:
        queries = self.runs.queries
        started = self.runs.started_before(run_id, queries.wait)
        body = queries.relayed(run_id)
        if body is None and started.run.error is None:
            raise Conflict("The first answer was too long to be given again: use another Idempotency-Key.")
        return Relay(started, iter(() if body is None else (body,)))
