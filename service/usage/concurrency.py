"""Limit on one user's concurrent runs, over all replicas.

Each run is a member of its user's sorted set in Redis, scored by its expiry time; the end of a run removes it. A
process that died, or that could not reach Redis then, leaves members behind: when a user has reached the limit, members
are compared with the database, at most every `COMPARE_SECONDS`. A run is counted before it is in the database, so one
that the database does not have is kept for `OPENING_SECONDS`. Without Redis, each process enforces the limit by itself.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from service.errors import RateLimited
from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.infra.redis_trip import Step, Trip

UNBOUNDED = 2**53
COMPARE_SECONDS = 2.0  # between two database comparisons for one user
OPENING_SECONDS = 60.0  # from counting a run to its row: more than a hold and the database are waited for

# KEYS: a user's runs. ARGV: the run, the limit, and its time to live in ms. Returns 1 when the run is counted, even if
# it was counted before: the client sends a script again whose answer was lost.
_ENTER = Script("""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
redis.call('ZREM', KEYS[1], ARGV[1])
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
""")
# KEYS: a user's runs. ARGV: the run.
_LEAVE = Script("return redis.call('ZREM', KEYS[1], ARGV[1])")
# KEYS: a user's runs. ARGV: their time to live and `OPENING_SECONDS`, in ms. Returns the score up to which a run was
# counted longer ago than that, and the runs with their scores.
_LIST = Script("""
local clock = redis.call('TIME')
local opened = clock[1] * 1000 + math.floor(clock[2] / 1000) + ARGV[1] - ARGV[2]
return {opened, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')}
""")


class ConcurrentRuns:
    """At most `most` concurrent runs per user; `seconds` is the longest time an attempt at a run may take.

    `running` tells of each run in the database whether it is running, by run id.
    """

    def __init__(
        self,
        redis_store: RedisStore,
        most: int,
        seconds: float,
        running: Callable[[Sequence[str]], Mapping[str, bool]],
    ) -> None:
        self._redis_store = redis_store
        self._most = most
        self._life_ms = int(seconds * 1000)
        self._running = running
        self._lock = threading.Lock()
        self._here: defaultdict[str, int] = defaultdict(int)
        self._compared: dict[str, float] = {}  # by user: time.monotonic()

    @contextmanager
    def counted(self, user_id: str, run_id: str, *, refuse: bool = True) -> Iterator[None]:
        """Count a run for the duration of the block.

        Raises `RateLimited` at the user's limit, unless `refuse` is False: for runs that had started before.
        """
        counted = CountedRun(self, user_id, run_id, refuse=refuse)
        trip = Trip(self._redis_store)
        try:
            counted.enter(trip)
            yield
        finally:
            counted.leave(trip)
            trip.send()

    def step(self, user_id: str, run_id: str, *, refuse: bool) -> Step:
        """Build a trip's step that counts a run in Redis; its answer is 0 at the user's limit."""
        most = self._most if refuse else UNBOUNDED
        return Step(_ENTER, (_key(user_id),), (run_id, most, self._life_ms))

    def forget_ended(self, user_id: str) -> bool:
        """Remove members whose runs have ended. False: there were none, or the last comparison was a moment ago."""
        now = time.monotonic()
        with self._lock:
            if now - self._compared.get(user_id, -COMPARE_SECONDS) < COMPARE_SECONDS:
                return False
            self._compared = {user: at for user, at in self._compared.items() if now - at < COMPARE_SECONDS}
            self._compared[user_id] = now
        ages = (self._life_ms, int(OPENING_SECONDS * 1000))
        opened, listed = self._redis_store.call(lambda client: _LIST(client, [_key(user_id)], *ages), (0, ()))
        is_new = {
            run.decode(): float(score) > opened for run, score in zip(listed[::2], listed[1::2], strict=True)
        }
        running = self._running(list(is_new))
        ended = [run_id for run_id, new in is_new.items() if not running.get(run_id, new)]
        return bool(ended) and bool(
            self._redis_store.call(lambda client: client.zrem(_key(user_id), *ended), default=0)
        )

    def enter_here(self, user_id: str, *, refuse: bool) -> None:
        """Count a run in this process. Raises `RateLimited`."""
        with self._lock:
            if refuse and self._here[user_id] >= self._most:
                raise self.refused()
            self._here[user_id] += 1

    def leave_here(self, user_id: str) -> None:
        with self._lock:
            self._here[user_id] -= 1
            if not self._here[user_id]:
                del self._here[user_id]

    def refused(self) -> RateLimited:
        return RateLimited(f"More than {self._most} runs of yours are under way.", retry_after=1)


class CountedRun:
    """Run in its user's count, from `enter` to `leave`. `ask` counts it in Redis beforehand, in a trip with others."""

    def __init__(self, limit: ConcurrentRuns, user_id: str, run_id: str, *, refuse: bool = True) -> None:
        self._limit = limit
        self._user_id = user_id
        self._run_id = run_id
        self._refuse = refuse
        self._step: Step | None = None
        self._is_here = False

    def ask(self, trip: Trip) -> None:
        """Count the run in Redis with this trip."""
        self._step = self._limit.step(self._user_id, self._run_id, refuse=self._refuse)
        trip.add(self._step)

    def enter(self, trip: Trip) -> None:
        """Count the run, in this process and, unless a trip has done so, in Redis. Raises `RateLimited`."""
        self._limit.enter_here(self._user_id, refuse=self._refuse)
        self._is_here = True
        if self._step is None or not self._step.reached:
            self._ask_now(trip)
        if not self._is_counted() and self._limit.forget_ended(self._user_id):
            self._ask_now(trip)
        if not self._is_counted():
            raise self._limit.refused()

    def leave(self, trip: Trip) -> None:
        """End the run's count, in Redis with this trip. Idempotent."""
        if self._is_here:
            self._is_here = False
            self._limit.leave_here(self._user_id)
        if self._is_counted():
            trip.add(Step(_LEAVE, (_key(self._user_id),), (self._run_id,)))
        self._step = None

    def _ask_now(self, trip: Trip) -> None:
        self.ask(trip)
        trip.send()

    def _is_counted(self) -> bool:
        """Return whether Redis counts the run, as far as known: while Redis is away, the answer is None."""
        return self._step is not None and self._step.reached and self._step.answer != 0


def _key(user_id: str) -> str:
    return f"slipway:running:{user_id}"
