"""Look-up of a run's question in the answer cache: a hit, a wait for another run with the same question, or a miss."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.spec import CacheSpec
from service.cache.answers import AnswerCache
from service.cache.entries import LASTING, MODEL_AWAY, CacheEntry, CacheKey, Owner
from service.cache.single_flight import SingleFlight
from service.errors import SlipwayError
from service.infra.redis_trip import ScriptCall, Trip
from service.types import Caller, Run, RunStatus

MAX_FAILURES = 2  # failed owners after which waiters get the error


class Lookup:
    """Look-up of one run, from `ask` to `end`: answered, waiting for the owner of the question, or the owner itself."""

    def __init__(
        self, single_flight: SingleFlight, run: Run, question: CacheKey | None, spec: CacheSpec
    ) -> None:
        self.run = run
        self._version = run.agent_version  # agent version of the question
        self._single_flight = single_flight
        self._question = question
        self._spec = spec
        self._me = Owner(
            run.id, run.user_id, run.mode == "stream" and run.request.on_disconnect == "continue"
        )
        self._ended = False
        self._call: ScriptCall | None = None
        self.entry = CacheEntry("bypass" if question is None else "miss")

    @property
    def asks(self) -> bool:
        """Return whether the question is looked up at all."""
        return self._question is not None and self.run.request.cache == "default"

    def ask(self, trip: Trip) -> None:
        """Look the question up with this trip; `read` is due once it has been sent."""
        if self._question is not None and self.asks:
            self._call = self._single_flight.answers.look_up(self._question, self._me)
            trip.add(self._call)

    def read(self) -> None:
        """Read what the trip has found."""
        call, self._call = self._call, None
        if self._question is not None and call is not None and call.reached:
            self.entry = self._single_flight.found(self._question, self._me, call.answer)
        self._label()

    @property
    def answer(self) -> dict[str, Any] | None:
        """Answer to return now."""
        return self.entry.answer

    @property
    def stale(self) -> dict[str, Any] | None:
        """Stale answer for a model outage, if the agent allows one."""
        return self.entry.stale if self._spec.stale else None

    @property
    def owner(self) -> Owner | None:
        """Return the other run that is asking the model the same question; None: no other."""
        owner = self.entry.owner
        return owner if owner != self._me else None

    def join(self, beat: float, until: float) -> Iterator[None]:
        """Wait while another run is the owner; afterwards the answer is found, or this run is the owner.

        Yields every `beat` seconds. Raises `RunTimeout` at `until` (time.monotonic() seconds), or an owner's error:
        that of the second failed owner, or of the first if retrying is pointless (`LASTING`).
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
            if outcome.error is not None and (failures >= MAX_FAILURES or isinstance(outcome.error, LASTING)):
                self.entry = self._stale_instead(outcome.error)
                break
            self.entry = yield from self._single_flight.find_again(
                self._question, self._me, owner.run_id, beat, until
            )
        self._label()

    def end(self, trip: Trip) -> None:
        """End the look-up when the run has ended or been given up: waiters get its answer, or one becomes the owner."""
        if self._question is None or self._ended:
            return
        self._ended = True
        run = self.run
        if run.agent_version != self._version:  # edited agent since: the answer does not belong to this key
            run = replace(run, status=RunStatus.RUNNING)
        trip.add(*self._single_flight.finish(self._question, self.entry, run, self._spec))

    def _stale_instead(self, error: SlipwayError) -> CacheEntry:
        """Return the stale answer if there is one and the model is away. Raises the error otherwise."""
        if self.stale is None or not isinstance(error, MODEL_AWAY):
            raise error
        return CacheEntry("stale", self.stale)

    def _label(self) -> None:
        self.run.cache = "coalesced" if self.owner is not None else self.entry.cache


@dataclass(frozen=True, slots=True)
class Lookups:
    """Factory of look-ups; one per process. `documents`: version of a workspace's documents, 0 without any."""

    answers: AnswerCache
    single_flight: SingleFlight
    documents: Callable[[str], int]

    def begin(self, caller: Caller, run: Run, agent: AgentDefinition, guardrails: str = "") -> Lookup:
        """Make the look-up of the run's question, which has one if the agent's answers are cached.

        `guardrails`: digest of those of its workspace, which filtered the answer, and the canary in which the run takes
        part; the agent's guardrails are in its version.
        """
        request, question = run.request, None
        if self.answers.takes(agent, request):
            route = agent.model_router.route(request.tier, request.question, len(agent.tools), agent.bounds)
            documents = self.documents(caller.workspace_id)
            version = f"{documents} {guardrails}" if documents or guardrails else ""
            question = self.answers.question(agent, request, caller, route.models[0], version)
        return Lookup(self.single_flight, run, question, agent.cache)
