"""Lookup of a request in the answer cache: a hit, a wait for another run that asks the same, or a miss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.spec import CacheSpec
from service.cache.answers import AnswerCache
from service.cache.entries import LASTING, MODEL_AWAY, CacheEntry, CacheKey, Owner
from service.cache.single_flight import SingleFlight
from service.errors import SlipwayError
from service.types import Caller, Run, RunStatus

MOST_FAILURES = 2  # owners that may fail with an error before those who wait get the error too


class Lookup:
    """Lookup of one run: answered, waiting for the owner of the question, or the owner itself."""

    def __init__(
        self, single_flight: SingleFlight, run: Run, question: CacheKey | None, spec: CacheSpec
    ) -> None:
        self.run = run
        self._version = run.agent_version  # which the question belongs to
        self._single_flight = single_flight
        self._question = question
        self._spec = spec
        self._me = me = Owner(
            run.id, run.user_id, run.mode == "stream" and run.request.on_disconnect == "continue"
        )
        self._ended = False
        self.entry = CacheEntry("bypass" if question is None else "miss")
        if question is not None and run.request.cache == "default":
            self.entry = single_flight.find(question, me)
        self._label()

    def __enter__(self) -> Lookup:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def answer(self) -> dict[str, Any] | None:
        """Answer to be given now."""
        return self.entry.answer

    @property
    def stale(self) -> dict[str, Any] | None:
        """Answer for when the model is away."""
        return self.entry.stale if self._spec.stale else None

    @property
    def owner(self) -> Owner | None:
        """Another run that is asking the model the same."""
        owner = self.entry.owner
        return owner if owner != self._me else None

    def join(self, beat: float, until: float) -> Iterator[None]:
        """Wait while another run is the owner; after it the answer is found, or this run is the owner.

        Yields every `beat` seconds. Raises `RunTimeout` at `until` (time.monotonic()), or what an owner failed with: a
        second one after a first, or the first, where trying again is no use.
        """
        failures = 0
        while (owner := self.owner) is not None:
            assert self._question is not None
            outcome = self.entry.outcome
            if outcome is None:
                outcome = yield from self._single_flight.wait(self._question, owner, beat, until)
            if outcome.answer is not None:
                self.entry = CacheEntry("stale" if outcome.stale else "coalesced", outcome.answer)
                break
            failures += outcome.error is not None
            if outcome.error is not None and (
                failures >= MOST_FAILURES or isinstance(outcome.error, LASTING)
            ):
                self.entry = self._stale_instead(outcome.error)
                break
            self.entry = yield from self._single_flight.find_again(
                self._question, self._me, owner.run_id, beat, until
            )
        self._label()

    def end(self) -> None:
        """End: the run has ended or come to nothing. Those who wait get its answer, or one of them is the owner."""
        if self._question is None or self._ended:
            return
        self._ended = True
        run = self.run
        if run.agent_version != self._version:  # it went on with an edited agent: no answer to this question
            run = replace(run, status=RunStatus.RUNNING)
        self._single_flight.finish(self._question, self.entry, run, self._spec)

    def _stale_instead(self, error: SlipwayError) -> CacheEntry:
        """Return the stale answer, where there is one and the model is away. Raises the error else."""
        if self.stale is None or not isinstance(error, MODEL_AWAY):
            raise error
        return CacheEntry("stale", self.stale)

    def _label(self) -> None:
        self.run.cache = "coalesced" if self.owner is not None else self.entry.cache


@dataclass(frozen=True, slots=True)
class Lookups:
    """Begins lookups. One per process."""

    answers: AnswerCache
    single_flight: SingleFlight

    def begin(self, caller: Caller, run: Run, agent: AgentDefinition) -> Lookup:
        """Look the run's question up, where the agent's answers are cached."""
        request, question = run.request, None
        if self.answers.takes(agent, request):
            route = agent.router.route(request.tier, request.question, len(agent.tools), agent.bounds)
            question = self.answers.question(agent, request, caller, route.models[0])
        return Lookup(self.single_flight, run, question, agent.cache)
