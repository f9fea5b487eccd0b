"""Limits per user beside requests per minute: tokens, tool calls, and calls of each kind; N over all replicas.

Tokens are known only after a call, so they are counted then, whatever the limit, and looked at before the next run.
A user may thus pass the limit by what is under way, and is then kept out until enough of it is a window ago.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

import redis
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage

from service.infra.redis import RedisStore
from service.types import Usage
from service.usage.limiter_storage import SCHEME, LimitWindow, RedisWindows

UNBOUNDED = 2**53
T = TypeVar("T")


class SharedRateLimit:
    """A rate such as `60/minute` (or several: `60/minute;1000/day`), counted by user; empty: no limit, no round trip.

    Counted in Redis, one round trip per rate; without Redis in this process's memory.
    """

    def __init__(self, redis_store: RedisStore, name: str, rate: str) -> None:
        self.name = name
        self._items = parse_many(rate) if rate else []
        self._shared = RedisWindows(f"{SCHEME}://", redis_store=redis_store, told=lambda reachable: None)
        self._own = MemoryStorage()

    def take(self, user_id: str) -> LimitWindow | None:
        """Count one call; the tightest window, with `remaining` -1 when the call may not be made. None: no limit."""
        if not self._items:
            return None
        windows = []
        for item in self._items:
            windows.append(self._take(item, self._key(item, user_id)))
            if windows[-1].remaining < 0:
                break
        return _tightest(windows)

    def look(self, user_id: str) -> LimitWindow | None:
        """As it stands, without counting; `remaining` -1 when nothing is left."""
        if not self._items:
            return None
        return _tightest([self._look(item, self._key(item, user_id)) for item in self._items])

    def add(self, user_id: str, amount: int) -> None:
        """Count what was used, whether it fits or not."""
        for item in self._items if amount else ():
            key, seconds = self._key(item, user_id), item.get_expiry()
            self._either(lambda store: store.acquire_sliding_window_entry(key, UNBOUNDED, seconds, amount))  # noqa: B023

    def _take(self, item: RateLimitItem, key: str) -> LimitWindow:
        limit, seconds = item.amount, item.get_expiry()
        passed = self._either(lambda store: store.acquire_sliding_window_entry(key, limit, seconds))
        told = self._shared.window(item, key)  # by the same round trip
        if passed:
            return told or self._look(item, key)._replace(remaining=0)
        return (told or self._look(item, key))._replace(remaining=-1)

    def _look(self, item: RateLimitItem, key: str) -> LimitWindow:
        limit, seconds = item.amount, item.get_expiry()
        before, before_left, count, left = self._either(lambda store: store.get_sliding_window(key, seconds))
        left -= seconds if left > seconds else 0  # in memory a window's counter lives as long again
        used = int(before * before_left / seconds + count)
        if used < limit:
            return LimitWindow(limit, limit - used, left)
        if count >= limit:  # it has to fade in the window after this one
            return LimitWindow(limit, -1, left + (1 - limit / count) * seconds)
        return LimitWindow(limit, -1, before_left - (limit - count) * seconds / before)

    def _key(self, item: RateLimitItem, user_id: str) -> str:
        return f"{self.name}:{item.get_expiry()}:{user_id}"

    def _either(self, work: Callable[[RedisWindows | MemoryStorage], T]) -> T:
        try:
            return work(self._shared)
        except redis.RedisError:
            return work(self._own)


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Every limit of that kind. `invoke`, `stream`, `task` and `session` come on top of the limit on all agent calls.

    `session` counts by user and session, `refused` (made-up keys and tokens) by address.
    """

    tokens: SharedRateLimit
    tool: SharedRateLimit
    invoke: SharedRateLimit
    stream: SharedRateLimit
    task: SharedRateLimit
    session: SharedRateLimit
    refresh: SharedRateLimit
    refused: SharedRateLimit

    @classmethod
    def of(cls, redis_store: RedisStore, **rates: str) -> RateLimits:
        """A rate for each name, see `SharedRate`; none where it is not given."""
        wanted = {**{field.name: "" for field in fields(cls)}, **rates}
        return cls(**{name: SharedRateLimit(redis_store, name, rate) for name, rate in wanted.items()})

    def used(self, user_id: str, usage: Usage) -> None:
        """Count a model call's tokens. Those read from the provider's cache are free of it, as they are upstream."""
        self.tokens.add(user_id, usage.input_tokens + usage.cache_creation_input_tokens + usage.output_tokens)


def _tightest(windows: list[LimitWindow]) -> LimitWindow | None:
    return min(windows, key=lambda window: window.remaining / window.limit, default=None)
