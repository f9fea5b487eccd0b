"""Single flight: of all who ask the same at the same moment, on every worker of every replica, one asks the model.

The first to look into the cache leads; its key in Redis says so, and lives only while it is renewed. The others wait.
One thread per process renews what is led here and listens for all who wait here: on one stream for all flights, so a
landing is heard at once over one connection, however many wait. It also looks at every flight twice a second, so one
whose leader died is noticed when its key has run out; those who waited then look into the cache again, and one leads,
however many leaders die. A Redis that does not answer for a moment ends no waiting; one that is gone for longer than
`SILENCE` does: everybody asks then.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager

import redis

from service.agents.spec import CacheSpec
from service.cache.answers import (
    FLIGHT_MS,
    AnswerCache,
    CacheEntry,
    CacheKey,
    Outcome,
    Owner,
    landing_of,
)
from service.errors import RunTimeout
from service.infra.redis import RedisStore
from service.infra.redis_client import answered, read_stream
from service.types import Run

log = logging.getLogger("slipway.single_flight")

LANDINGS = "slipway:landings"  # a stream: the run ids of leaders whose waiters can look
MAX_LANDINGS = 1_000
RENEWAL = 1.0  # seconds
FIND_AGAIN = 0.2  # seconds between questions to a Redis that is away
LOOK = 0.5  # seconds between looks at every flight that is waited for
SILENCE = 5.0  # seconds for which Redis may be away before those who wait ask the model themselves


class _Awaited:
    """A flight that somebody in this process waits for."""

    def __init__(self, question: CacheKey, leader: Owner) -> None:
        self.question = question
        self.leader = leader
        self.readers = 0
        self.landing: Outcome | None = None
        self.landed = threading.Event()

    def tell(self, landing: Outcome) -> None:
        self.landing = landing
        self.landed.set()


class SingleFlight:
    """One per process. `blocking` is a client whose reads may take seconds; one connection of it is used."""

    def __init__(
        self, redis_store: RedisStore, blocking: redis.Redis, answers: AnswerCache, seconds: float
    ) -> None:
        self._redis_store = redis_store
        self._blocking = blocking
        self._answers = answers
        self._seconds = seconds  # the longest a flight is led: one that was forgotten must end too
        self._wake = threading.Condition()
        self._led: dict[str, tuple[CacheKey, float]] = {}
        self._awaited: dict[tuple[str, str], _Awaited] = {}
        self._position = b"0"
        self._looked = self._renewed = 0.0
        self._silent_since: float | None = None  # time.monotonic(); of a Redis that does not answer
        self._thread: threading.Thread | None = None

    def find(self, question: CacheKey, me: Owner | None, after: str = "") -> CacheEntry:
        """`AnswerCache.find`; from then on `me` leads, where it says so."""
        found = self._answers.find(question, me, after)
        self._heard(found.cache != "bypass")
        if me is not None and found.leader == me:
            with self._wake:
                self._led[me.run_id] = question, time.monotonic() + self._seconds
                self._start()
        return found

    def find_again(
        self, question: CacheKey, me: Owner, after: str, beat: float, until: float
    ) -> Generator[None, None, CacheEntry]:
        """The same for one who has waited: a Redis that is away for a moment is asked again."""
        found = self.find(question, me, after)
        while found.cache == "bypass" and not self._is_silent() and time.monotonic() < until:
            time.sleep(min(beat, FIND_AGAIN))
            yield
            found = self.find(question, me, after)
        return found

    def _heard(self, answered: bool) -> None:
        """Redis has answered, or not."""
        if answered:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time.monotonic()

    def _is_silent(self) -> bool:
        """Whether Redis has been away for so long that nobody is to wait for it."""
        since = self._silent_since
        return since is not None and time.monotonic() - since >= SILENCE

    def land(self, question: CacheKey, found: CacheEntry, run: Run, spec: CacheSpec) -> None:
        """This run has ended: keep its answer, and let those who wait for it know."""
        with self._wake:  # those led are gone through meanwhile
            me = found.leader if self._led.pop(run.id, None) is not None else None
        if self._answers.land(question, me, run, spec, found.vector):
            self._redis_store.call(lambda client: _announce(client, run.id), default=None)

    def wait(
        self, question: CacheKey, leader: Owner, beat: float, until: float
    ) -> Generator[None, None, Outcome]:
        """What came of a leader. Yields at least every `beat` seconds. Raises `RunTimeout` at `until`."""
        with self._awaiting(question, leader) as awaited:
            while not awaited.landed.wait(min(beat, max(0.0, until - time.monotonic()))):
                if time.monotonic() >= until:
                    raise RunTimeout
                yield
        assert awaited.landing is not None
        return awaited.landing

    @contextmanager
    def _awaiting(self, question: CacheKey, leader: Owner) -> Iterator[_Awaited]:
        key = question.flight, leader.run_id
        with self._wake:
            awaited = self._awaited.setdefault(key, _Awaited(question, leader))
            awaited.readers += 1
            first = awaited.readers == 1
            self._start()
            self._wake.notify()
        try:
            if first:
                self._look([awaited])  # it may have landed since the cache was asked
            yield awaited
        finally:
            with self._wake:
                awaited.readers -= 1
                if not awaited.readers and self._awaited.get(key) is awaited:
                    del self._awaited[key]

    def _start(self) -> None:
        if self._thread is None:  # lazily: a thread does not survive a fork
            self._thread = threading.Thread(target=self._loop, name="single-flight", daemon=True)
            self._thread.start()

    def _loop(self) -> None:
        while True:
            with self._wake:
                if not self._awaited:
                    self._wake.wait(RENEWAL)
            try:
                self._renew()
                if self._awaited:
                    self._listen()
            except Exception:  # everybody in this process waits on this thread: it must not end
                log.exception("single_flight_failed")
                time.sleep(RENEWAL)

    def _renew(self) -> None:
        now = time.monotonic()
        if now < self._renewed + RENEWAL:
            return
        self._renewed = now
        with self._wake:
            self._led = {run_id: led for run_id, led in self._led.items() if led[1] > now}
            single_flight = [question.flight for question, _ in self._led.values()]
        if single_flight:
            self._redis_store.call(lambda client: _prolong(client, single_flight), default=None)

    def _listen(self) -> None:
        """Wait for landings, half a second at most, and look at those flights; at all of them when it is time."""
        landed: set[str] = set()
        try:
            if entries := read_stream(self._blocking, LANDINGS, self._position, MAX_LANDINGS, LOOK):
                self._position = entries[-1][0]
                landed = {fields[b"run"].decode() for _, fields in entries}
        except redis.RedisError:
            time.sleep(LOOK / 5)
            self._looked = 0.0
        now = time.monotonic()
        everyone = now >= self._looked + LOOK
        if everyone:
            self._looked = now
        with self._wake:
            waiting = [one for one in self._awaited.values() if not one.landed.is_set()]
        self._look([one for one in waiting if everyone or one.leader.run_id in landed])

    def _look(self, single_flight: Collection[_Awaited]) -> None:
        """Find out how these stand, in one round trip. When Redis cannot say for long, nobody is to wait any longer."""
        if not single_flight:
            return
        states = self._redis_store.call(lambda client: _states(client, single_flight), default=None)
        self._heard(states is not None)
        if states is None and not self._is_silent():
            return
        for number, awaited in enumerate(single_flight):
            leader, landing = (None, None) if states is None else states[2 * number : 2 * number + 2]
            if landing is not None:
                awaited.tell(landing_of(landing))
            elif leader != str(awaited.leader).encode():
                awaited.tell(Outcome())


def _announce(client: redis.Redis, run_id: str) -> None:
    client.xadd(LANDINGS, {"run": run_id}, maxlen=MAX_LANDINGS, approximate=True)


def _prolong(client: redis.Redis, single_flight: Collection[str]) -> None:
    """Should another lead one of these by now, its flight ends no later than ours: that does no harm."""
    answered(client, *(("PEXPIRE", flight, FLIGHT_MS) for flight in single_flight))


def _states(client: redis.Redis, single_flight: Collection[_Awaited]) -> list[bytes | None]:
    """Leader and landing of each. In this order: a flight that is over by the second question has landed by then."""
    asked: list[tuple[str, ...]] = []
    for awaited in single_flight:
        asked.append(("HGET", awaited.question.flight, "leader"))
        asked.append(("GET", awaited.question.landing(awaited.leader.run_id)))
    return answered(client, *asked)
