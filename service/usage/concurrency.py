"""A limit on the runs of one user under way at once, over all replicas.

Each run is a member of its user's sorted set in Redis, with the moment at which it counts no longer: the end of a run
removes it, and one whose process died is forgotten after the longest time that an attempt may take. Without Redis each
process counts by itself.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from service.cache import SpeedStore
from service.errors import RateLimited
from service.redis_client import Script

# KEYS: a user's runs. ARGV: the run, the most at once, and for how many ms it counts at most. Answers 1: it counts now.
_ENTER = Script("""
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
""")


class ConcurrentRuns:
    """`most` runs of a user at once; `seconds` is the longest that an attempt at a run may take."""

    def __init__(self, speed: SpeedStore, most: int, seconds: float) -> None:
        self._speed = speed
        self._most = most
        self._life_ms = int(seconds * 1000)
        self._lock = threading.Lock()
        self._here: defaultdict[str, int] = defaultdict(int)

    @contextmanager
    def counted(self, user_id: str, run_id: str) -> Iterator[None]:
        """Count a run for the length of the block. Raises `RateLimited` when the user has as many as allowed."""
        with self._counted_here(user_id):
            key = f"slipway:running:{user_id}"
            asked = (run_id, self._most, self._life_ms)
            if self._speed.call(lambda client: _ENTER(client, (key,), *asked), default=1) == 0:
                raise self._refused()
            try:
                yield
            finally:
                self._speed.call(lambda client: client.zrem(key, run_id), default=0)

    @contextmanager
    def _counted_here(self, user_id: str) -> Iterator[None]:
        with self._lock:
            if self._here[user_id] >= self._most:
                raise self._refused()
            self._here[user_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._here[user_id] -= 1
                if not self._here[user_id]:
                    del self._here[user_id]

    def _refused(self) -> RateLimited:
        return RateLimited(f"More than {self._most} runs of yours are under way.", retry_after=1)
