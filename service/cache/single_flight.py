"""Single flight: of all runs asking the same question at once, across workers and replicas, one asks the model.

The first run to miss the cache is the owner: a key in Redis names it, and expires unless renewed. The others wait. One
thread per process renews the flights owned here and listens for all waiters here, on one stream for all flights, so an
outcome arrives at once over one connection, however many runs wait. The same thread checks every flight twice a second:
once the key of a dead owner has expired, its waiters look into the cache again, and one becomes the owner, however many
owners die. A short Redis outage ends no wait; one longer than `SILENCE` does: then every waiter asks the model itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Generator, Iterator
from contextlib import contextmanager
from typing import Any

import redis

from service.agents.spec import CacheSpec
from service.cache.answers import FLIGHT_MS, AnswerCache
from service.cache.entries import CacheEntry, CacheKey, Outcome, Owner, outcome_of
from service.errors import RunTimeout
from service.infra.redis import RedisStore
from service.infra.redis_client import Script, answered, read_stream
from service.infra.redis_trip import ScriptCall, Trip
from service.types import Run

log = logging.getLogger("slipway.single_flight")

OUTCOMES = "slipway:landings"  # Redis stream of run ids of owners whose outcome is stored
MAX_OUTCOMES = 1_000
RENEWAL = 1.0  # seconds between renewals of owned flights
FIND_AGAIN = 0.2  # seconds between retries while Redis is away
CHECK = 0.5  # seconds between checks of all awaited flights
SILENCE = 5.0  # seconds of Redis outage after which waiters ask the model themselves

# KEYS: `OUTCOMES`. ARGV: a run.
_ANNOUNCE = Script(f"return redis.call('XADD', KEYS[1], 'MAXLEN', '~', {MAX_OUTCOMES}, '*', 'run', ARGV[1])")


class _Awaited:
    """Flight awaited by runs of this process."""

    def __init__(self, question: CacheKey, owner: Owner) -> None:
        self.question = question
        self.owner = owner
        self.waiting = 0
        self.outcome: Outcome | None = None
        self.done = threading.Event()

    def finish(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.done.set()


class SingleFlight:
    """Ownership and awaiting of flights; one per process. Blocking reads use one connection of `blocking`."""

    def __init__(
        self, redis_store: RedisStore, blocking: redis.Redis, answers: AnswerCache, seconds: float
    ) -> None:
        self._redis_store = redis_store
        self._blocking = blocking
        self.answers = answers
        self._seconds = seconds  # longest ownership of a flight: a leaked one must end too
        self._wake = threading.Condition()
        self._owned: dict[str, tuple[CacheKey, float]] = {}
        self._awaited: dict[tuple[str, str], _Awaited] = {}
        self._position = b"0"
        self._checked = self._renewed = 0.0
        self._silent_since: float | None = None  # time.monotonic() seconds; None while Redis answers
        self._thread: threading.Thread | None = None

    def find(self, question: CacheKey, me: Owner | None, after: str = "") -> CacheEntry:
        """Look a question up in a round trip of its own."""
        trip, call = Trip(self._redis_store), self.answers.look_up(question, me, after)
        trip.add(call)
        trip.send()
        return self.found(question, me, call.answer)

    def found(self, question: CacheKey, me: Owner | None, answer: Any) -> CacheEntry:
        """Parse the answer of `AnswerCache.look_up`; if `me` is the owner, renew the flight from then on."""
        found = self.answers.found(question, me, answer)
        self._note_answered(found.cache != "bypass")
        if me is not None and found.owner == me and found.cache != "bypass":
            with self._wake:
                self._owned[me.run_id] = question, time.monotonic() + self._seconds
                self._start()
        return found

    def find_again(
        self, question: CacheKey, me: Owner, after: str, beat: float, until: float
    ) -> Generator[None, None, CacheEntry]:
        """Look up after a wait; retry while Redis is briefly away. Yields at least every `beat` seconds meanwhile."""
        found = self.find(question, me, after)
        while found.cache == "bypass" and not self._is_silent() and time.monotonic() < until:
            time.sleep(min(beat, FIND_AGAIN))
            yield
            found = self.find(question, me, after)
        return found

    def _note_answered(self, answered: bool) -> None:
        """Record whether Redis has answered, for `_is_silent`."""
        if answered:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time.monotonic()

    def _is_silent(self) -> bool:
        """Return whether Redis has been away for `SILENCE` seconds, so that waiting for it must end."""
        since = self._silent_since
        return since is not None and time.monotonic() - since >= SILENCE

    def finish(self, question: CacheKey, found: CacheEntry, run: Run, spec: CacheSpec) -> list[ScriptCall]:
        """Build the calls of a trip that store the answer of an ended run, and announce its outcome to its waiters."""
        with self._wake:  # shared with the thread
            self._owned.pop(run.id, None)
        me = found.owner if found.owner is not None and found.owner.run_id == run.id else None
        call = self.answers.finish(question, me, run, spec, found.vector)
        return [] if call is None else [call, ScriptCall(_ANNOUNCE, (OUTCOMES,), (run.id,))]

    def wait(
        self, question: CacheKey, owner: Owner, beat: float, until: float
    ) -> Generator[None, None, Outcome]:
        """Wait for an owner's outcome. Yields at least every `beat` seconds. Raises `RunTimeout` at `until`."""
        with self._awaiting(question, owner) as awaited:
            while not awaited.done.wait(min(beat, max(0.0, until - time.monotonic()))):
                if time.monotonic() >= until:
                    raise RunTimeout
                yield
        assert awaited.outcome is not None
        return awaited.outcome

    @contextmanager
    def _awaiting(self, question: CacheKey, owner: Owner) -> Iterator[_Awaited]:
        key = question.flight, owner.run_id
        with self._wake:
            self._start()
            awaited = self._awaited.setdefault(key, _Awaited(question, owner))
            awaited.waiting += 1
            first = awaited.waiting == 1
            self._wake.notify()
        try:
            if first:
                self._check([awaited])  # the owner may have ended since the look-up
            yield awaited
        finally:
            with self._wake:
                awaited.waiting -= 1
                if not awaited.waiting and self._awaited.get(key) is awaited:
                    del self._awaited[key]

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():  # lazily: no thread survives a fork
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
            except Exception:  # every waiter of this process depends on this thread: it must not die
                log.exception("single_flight_failed")
                time.sleep(RENEWAL)

    def _renew(self) -> None:
        now = time.monotonic()
        if now < self._renewed + RENEWAL:
            return
        self._renewed = now
        with self._wake:
            self._owned = {run_id: flight for run_id, flight in self._owned.items() if flight[1] > now}
            flights = [question.flight for question, _ in self._owned.values()]
        if flights:
            self._redis_store.call(lambda client: _prolong(client, flights), default=None)

    def _listen(self) -> None:
        """Wait up to `CHECK` seconds for outcomes, then check their flights; all flights when a check is due."""
        ended: set[str] = set()
        try:
            if entries := read_stream(self._blocking, OUTCOMES, self._position, MAX_OUTCOMES, CHECK):
                self._position = entries[-1][0]
                ended = {fields[b"run"].decode() for _, fields in entries}
        except redis.RedisError:
            time.sleep(CHECK / 5)
            self._checked = 0.0
        now = time.monotonic()
        all_due = now >= self._checked + CHECK
        if all_due:
            self._checked = now
        with self._wake:
            waiting = [one for one in self._awaited.values() if not one.done.is_set()]
        self._check([one for one in waiting if all_due or one.owner.run_id in ended])

    def _check(self, flights: Collection[_Awaited]) -> None:
        """Check flights in one round trip. If Redis has been away for too long, release their waiters."""
        if not flights:
            return
        states = self._redis_store.call(lambda client: _states(client, flights), default=None)
        self._note_answered(states is not None)
        if states is None and not self._is_silent():
            return
        for number, awaited in enumerate(flights):
            owner, outcome = (None, None) if states is None else states[2 * number : 2 * number + 2]
            if outcome is not None:
                awaited.finish(outcome_of(outcome))
            elif owner != str(awaited.owner).encode():
                awaited.finish(Outcome())


def _prolong(client: redis.Redis, flights: Collection[str]) -> None:
    """Renew flights. If another owner holds one by now, its flight ends no later than ours would: harmless."""
    answered(client, *(("PEXPIRE", flight, FLIGHT_MS) for flight in flights))


def _states(client: redis.Redis, flights: Collection[_Awaited]) -> list[bytes | None]:
    """Read owner and outcome of each flight, in this order: a flight seen without owner has its outcome already."""
    commands: list[tuple[str, ...]] = []
    for awaited in flights:
        commands.append(("HGET", awaited.question.flight, "leader"))
        commands.append(("GET", awaited.question.outcome(awaited.owner.run_id)))
    return answered(client, *commands)
