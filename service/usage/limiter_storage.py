"""Rate counters in Redis, as a storage for the `limits` library under Flask-Limiter.

One script per limit counts a request and tells what is left, so the `RateLimit-*` headers cost no further
round trip, and it runs over the process's one `SpeedStore`, so Redis being away is found out once. A window
begins with the first request in it; what the window before it held still counts, by the share of it that is
less than one window ago. So N requests pass from a standing start, and about N around a window's edge.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import redis
from limits import RateLimitItem
from limits.storage import SlidingWindowCounterSupport, Storage

from service.infra.redis import RedisStore
from service.infra.redis_client import Script

SCHEME = "slipway-speed"
STRATEGY = "sliding-window-counter"
# The name holds the strategy and the layout: another one must not read these keys.
PREFIX = "slipway:rate:swc1"

# KEYS: one hash {s: window start in ms, c: count in it, p: count in the one before}.
# ARGV: limit, window in ms, cost. Answers passed, previous, ms of it left, current, ms left, ms to wait.
# Further KEYS: a hash to read on the way; further ARGV: its fields. Where the first of them is there, nothing is
# counted. Their values end the answer.
_TAKE = Script("""
local seen = {}
if KEYS[2] then seen = redis.call('HMGET', KEYS[2], unpack(ARGV, 4)) end
if seen[1] then return {1, 0, 0, 0, 0, 0, unpack(seen)} end
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local kept = redis.call('HMGET', KEYS[1], 's', 'c', 'p')
local start, count, before = tonumber(kept[1] or now), tonumber(kept[2] or 0), tonumber(kept[3] or 0)
if now >= start + 2 * window then
  start, count, before = now, 0, 0
elseif now >= start + window then
  start, count, before = start + window, 0, count
end
local left = start + window - now
local passed, wait = 0, 0
if math.floor(before * left / window) + count + cost <= limit then
  passed = 1
  if cost > 0 then
    count = count + cost
    redis.call('HSET', KEYS[1], 's', start, 'c', count, 'p', before)
    redis.call('PEXPIRE', KEYS[1], 2 * window)
  end
elseif count + cost > limit then
  wait = left + math.floor(math.max(0, 1 - (limit - cost + 1) / count) * window)
else
  wait = left - math.floor((limit - cost - count + 1) * window / before)
end
return {passed, before, left, count, left, wait, unpack(seen)}
""")


class LimitWindow(NamedTuple):
    """A limit as it stands: what is left, and seconds until more is (or until a refused request may pass)."""

    limit: int
    remaining: int
    reset: float


class Count(NamedTuple):
    """A call that was counted, unless its window is full. `seen`: what else was read, where anything was."""

    passed: bool
    window: LimitWindow
    seen: Sequence[bytes | None] | None


class RedisWindows(Storage, SlidingWindowCounterSupport):
    """`limits` storage over a `SpeedStore`. `told` hears False when it fails and True when it is back."""

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - so the base class has it

    def __init__(self, uri: str, *, redis_store: RedisStore, told: Callable[[bool], None], **_: Any) -> None:
        super().__init__(uri, wrap_exceptions=False)
        self._redis_store = redis_store
        self._told = told
        self._recent = threading.local()

    @property
    def base_exceptions(self) -> type[Exception]:
        return redis.RedisError

    def count(
        self, key: str, limit: int, seconds: int, also: tuple[str, Sequence[str]] | None = None
    ) -> Count:
        """Count one call. `also`: a hash and fields of it to read by the way, but on a cluster, where it is elsewhere.

        Where the first of these fields is there, the call passes and is not counted. Raises `redis.RedisError`.
        """
        passed, before, _, count, left, wait, *seen = self._take(key, limit, seconds, 1, also)
        return Count(passed == 1, _window(limit, seconds, before, count, left, wait), seen or None)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        passed, *state, wait = self._take(key, limit, expiry, amount)
        remembered = getattr(self._recent, "states", {})
        if len(remembered) > 8:  # of earlier requests of this thread
            remembered = {}
        self._recent.states = {**remembered, key: (time.monotonic(), state, wait)}
        return bool(passed == 1)

    def get_sliding_window(self, key: str, expiry: int) -> tuple[int, float, int, float]:
        """Previous count, seconds it still weighs, current count, seconds until it begins to fade."""
        _, before, before_left, count, left, _ = self._take(key, 0, expiry, 0)
        return before, before_left / 1000, count, left / 1000

    def clear_sliding_window(self, key: str, expiry: int) -> None:
        self.clear(key)

    def window(self, item: RateLimitItem, key: str) -> LimitWindow | None:
        """What the last take of this thread for `key` was told; None when it took nothing from Redis."""
        found = getattr(self._recent, "states", {}).pop(key, None)
        if found is None:
            return None
        _, (before, _, count, left), wait = found
        return _window(item.amount, item.get_expiry(), before, count, left, wait)

    def check(self) -> bool:
        """Whether Redis counts: it may be there, and take no writes."""
        try:
            self._redis_store.attempt(lambda client: _TAKE(client, (_name("check"),), 1_000_000, 1000, 1))
        except (redis.RedisError, OSError):
            return False
        self._told(True)
        return True

    def clear(self, key: str) -> None:
        self._redis_store.attempt(lambda client: client.delete(_name(key)))

    def reset(self) -> int | None:
        raise NotImplementedError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        raise NotImplementedError  # of the fixed window, which is not used

    get = get_expiry = incr  # type: ignore[assignment]

    def _take(
        self,
        key: str,
        limit: int,
        expiry: int,
        cost: int,
        also: tuple[str, Sequence[str]] | None = None,
    ) -> list[Any]:
        def take(client: redis.Redis) -> list[Any]:
            if also is None or not isinstance(client, redis.Redis):  # a cluster: they are of two slots
                taken: list[Any] = _TAKE(client, (_name(key),), limit, expiry * 1000, cost)
            else:
                taken = _TAKE(client, (_name(key), also[0]), limit, expiry * 1000, cost, *also[1])
            return taken

        try:
            return self._redis_store.attempt(take)
        except redis.RedisError:
            self._told(False)
            raise


def _window(limit: int, seconds: int, before: int, count: int, left: int, wait: int) -> LimitWindow:
    used = before * left // (seconds * 1000) + count
    return LimitWindow(limit, max(0, limit - used), (wait or left) / 1000)


def _name(key: str) -> str:
    return f"{PREFIX}:{key}"
