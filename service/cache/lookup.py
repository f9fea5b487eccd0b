"""One request on its way past the cache of answers: a hit, a wait for another who asks the same, or the model's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from service.agents.spec import CacheSpec
from service.cache.answers import LASTING, MODEL_AWAY, CacheEntry, CacheKey, Owner
from service.cache.single_flight import SingleFlight
from service.errors import SlipwayError
from service.types import Run, RunStatus

MOST_FAILURES = 2  # leaders that may fail with an error before one who waits gets the error too


class Lookup:
    """One request on its way past the cache: answered, waiting for another who asks the same, or to ask the model."""

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
        self.found = CacheEntry("bypass" if question is None else "miss")
        if question is not None and run.request.cache == "default":
            self.found = single_flight.find(question, me)
        self._tell()

    def __enter__(self) -> Lookup:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    @property
    def answer(self) -> dict[str, Any] | None:
        """One that is to be given now."""
        return self.found.answer

    @property
    def leader(self) -> Owner | None:
        """Another run that is asking the model the same."""
        leader = self.found.leader
        return leader if leader != self._me else None

    def join(self, beat: float, until: float) -> Iterator[None]:
        """Wait while another leads; after it the answer is found, or the model is this run's to ask.

        Yields every `beat` seconds. Raises `RunTimeout`, or what a leader failed with: a second one after a first, or
        the first, where trying again is no use.
        """
        failures = 0
        while (leader := self.leader) is not None:
            assert self._question is not None
            landing = self.found.landing
            if landing is None:
                landing = yield from self._single_flight.wait(self._question, leader, beat, until)
            if landing.answer is not None:
                self.found = CacheEntry("stale" if landing.stale else "coalesced", landing.answer)
                break
            failures += landing.error is not None
            if landing.error is not None and (
                failures >= MOST_FAILURES or isinstance(landing.error, LASTING)
            ):
                self.found = self._instead(landing.error)
                break
            self.found = yield from self._single_flight.find_again(
                self._question, self._me, leader.run_id, beat, until
            )
        self._tell()

    def end(self) -> None:
        """The run has ended or come to nothing. Those who wait get its answer, or one of them leads."""
        if self._question is None or self._ended:
            return
        self._ended = True
        run = self.run
        if run.agent_version != self._version:  # it went on with an edited agent: no answer to this question
            run = replace(run, status=RunStatus.RUNNING)
        self._single_flight.land(self._question, self.found, run, self._spec)

    def _instead(self, error: SlipwayError) -> CacheEntry:
        """The stale answer, where there is one and the model is away. Raises the error else."""
        if self.found.stale is None or not self._spec.stale or not isinstance(error, MODEL_AWAY):
            raise error
        return CacheEntry("stale", self.found.stale)

    def _tell(self) -> None:
        self.run.cache = "coalesced" if self.leader is not None else self.found.cache
        self.run.stale = self.found.stale if self._spec.stale else None
