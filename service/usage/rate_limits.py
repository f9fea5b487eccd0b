"""Rate limits by the `limits` library: its Redis storage over this process's client, and its memory without Redis.

A sliding window counter: a window begins with the first call in it, and the window before it still counts, by the
share of it that is less than one window ago. N calls pass from a standing start, about N around a window's edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import redis
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage, RedisStorage
from limits.typing import RedisClient

from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.types import Usage

SCHEME = "slipway"
STRATEGY = "sliding-window-counter"
PREFIX = "slipway:rate"
UNBOUNDED = 2**53
T = TypeVar("T")
State: TypeAlias = tuple[
    int, float, int, float
]  # previous count, seconds left of it; current count, seconds left
_SCRIPTS = (
    "moving_window",
    "acquire_moving_window",
    "clear_keys",
    "incr_expire",
    "sliding_window",
    "acquire_sliding_window",
)


class LimitWindow(NamedTuple):
    """A rate as it stands: calls left (-1: none, and this one is refused), and seconds until there are more."""

    limit: int
    remaining: int
    reset: float

    def after(self, *, passed: bool) -> LimitWindow:
        """The same for a call that has been counted, or refused."""
        return self._replace(remaining=max(0, self.remaining) if passed else -1)


def window_of(item: RateLimitItem, state: State) -> LimitWindow:
    """Window of a rate by a storage's state of it; `remaining` is -1 when it is full."""
    limit, seconds = item.amount, item.get_expiry()
    before, before_left, count, left = state
    left -= seconds if left > seconds else 0  # a window's counter lives as long again
    used = int(before * before_left / seconds + count)
    if used < limit:
        return LimitWindow(limit, limit - used, left)
    if count >= limit:  # it has to fade in the window after this one
        return LimitWindow(limit, -1, left + (1 - limit / count) * seconds)
    return LimitWindow(limit, -1, before_left - (limit - count) * seconds / before)


def tightest(windows: Iterable[LimitWindow]) -> LimitWindow | None:
    """Window with the smallest share left; None of none."""
    return min(windows, key=lambda window: window.remaining / window.limit, default=None)


class LimitStorage(RedisStorage):
    """Redis storage of `limits` over a `RedisStore`: any address, connected when first used, one circuit for all.

    While Redis is away this process's memory counts. Flask-Limiter's own fallback would do so for up to 32 seconds
    after Redis is back, and gives all but one of the threads that find it away an error.
    `alone` hears whether memory counted.
    """

    STORAGE_SCHEME = [SCHEME]  # noqa: RUF012 - so the base class has it

    def __init__(
        self,
        uri: str = f"{SCHEME}://",
        *,
        redis_store: RedisStore,
        alone: Callable[[bool], None] = lambda alone: None,
        **_: Any,
    ) -> None:
        self._redis_store = redis_store
        self._alone = alone
        self._memory = MemoryStorage()
        super().__init__(
            "redis://", key_prefix=PREFIX
        )  # a client that is never connected, see `get_connection`

    def initialize_storage(self, _uri: str) -> None:
        for name in _SCRIPTS:
            script = Script(getattr(self, f"SCRIPT_{name.upper()}").decode())
            setattr(self, f"lua_{name}", partial(self._run, script))

    def get_connection(self, readonly: bool = False) -> RedisClient:
        return cast(RedisClient, self._redis_store.client)

    def acquire_sliding_window_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        return self._or_in_memory(
            super().acquire_sliding_window_entry,
            self._memory.acquire_sliding_window_entry,
            (key, limit, expiry, amount),
        )

    def get_sliding_window(self, key: str, expiry: int) -> State:
        return self._or_in_memory(super().get_sliding_window, self._memory.get_sliding_window, (key, expiry))

    def _or_in_memory(self, shared: Callable[..., T], here: Callable[..., T], arguments: Sequence[Any]) -> T:
        try:
            found = shared(*arguments)
        except redis.RedisError:
            self._alone(True)
            return here(*arguments)
        self._alone(False)
        return found

    def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        return self._redis_store.attempt(lambda client: script(client, keys, *arguments))


class SharedRateLimit:
    """Rate counted inside a run, where there is no request: tokens and tool calls. Counted by user, over all replicas.

    A rate such as `60/minute` (or several: `60/minute;1000/day`); empty: no limit, no round trip.
    """

    def __init__(self, redis_store: RedisStore, name: str, rate: str) -> None:
        self._storage = LimitStorage(redis_store=redis_store)
        self._name = name
        self._items = parse_many(rate) if rate else []

    def take(self, user_id: str) -> LimitWindow | None:
        """Count one call; the tightest window, with `remaining` -1 when the call is refused. None: no limit."""
        windows = []
        for item in self._items:
            key, seconds = self._key(item, user_id), item.get_expiry()
            passed = self._storage.acquire_sliding_window_entry(key, item.amount, seconds)
            window = window_of(item, self._storage.get_sliding_window(key, seconds))
            windows.append(window.after(passed=passed))
            if not passed:
                break
        return tightest(windows)

    def look(self, user_id: str) -> LimitWindow | None:
        """Return the tightest window without counting; `remaining` is -1 when nothing is left."""
        return tightest(
            window_of(item, self._storage.get_sliding_window(self._key(item, user_id), item.get_expiry()))
            for item in self._items
        )

    def add(self, user_id: str, amount: int) -> None:
        """Count what was used, whether it fits or not."""
        for item in self._items if amount else ():
            key = self._key(item, user_id)
            self._storage.acquire_sliding_window_entry(key, UNBOUNDED, item.get_expiry(), amount)

    def _key(self, item: RateLimitItem, user_id: str) -> str:
        return f"{self._name}:{item.get_expiry()}:{user_id}"


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Limits that are counted inside a run.

    Tokens are known only after a call, so they are counted then, whatever the limit, and looked at before the next
    run. A user may pass the limit by what is under way, and is then kept out until enough of it is a window ago.
    """

    tokens: SharedRateLimit
    tool: SharedRateLimit

    @classmethod
    def of(cls, redis_store: RedisStore, *, tokens: str = "", tool: str = "") -> RateLimits:
        """Limits of these rates; none where it is empty."""
        return cls(SharedRateLimit(redis_store, "tokens", tokens), SharedRateLimit(redis_store, "tool", tool))

    def used(self, user_id: str, usage: Usage) -> None:
        """Count a model call's tokens. Those read from the provider's cache are free of it, as they are upstream."""
        self.tokens.add(user_id, usage.input_tokens + usage.cache_creation_input_tokens + usage.output_tokens)
