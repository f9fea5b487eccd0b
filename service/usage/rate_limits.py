"""Rate limits of the `limits` library, over this process's Redis client, or in memory without Redis.

Sliding window counter: a window begins with its first call, and the previous window still counts, weighted by the part
of it that is less than one window old. N calls pass from a standing start, about N around a window's edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import redis
from limits import RateLimitItem, parse_many
from limits.storage import MemoryStorage, RedisStorage
from limits.typing import RedisClient

from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.infra.redis_trip import ScriptCall, Trip
from service.types import Usage

SCHEME = "slipway"
STRATEGY = "sliding-window-counter"
PREFIX = "slipway:rate"
UNBOUNDED = 2**53
T = TypeVar("T")
# Previous count, seconds left of it; current count, seconds left.
State: TypeAlias = tuple[int, float, int, float]
_SCRIPTS = ("sliding_window", "acquire_sliding_window")  # those of the one strategy in use
_WINDOW = f"local function window(KEYS, ARGV)\n{RedisStorage.SCRIPT_SLIDING_WINDOW.decode()}\nend"
# KEYS: the previous and the current window's counter. ARGV: limit, window in seconds. Returns whether the call passed,
# and the window; a refused call stops its trip.
_COUNT = Script(f"""
{_WINDOW}
local function acquire(KEYS, ARGV)
{RedisStorage.SCRIPT_ACQUIRE_SLIDING_WINDOW.decode()}
end
local passed = acquire(KEYS, {{ARGV[1], ARGV[2], 1}})
return {{passed and 1 or 0, window(KEYS, {{ARGV[2]}})}}, not passed
""")
# The same without counting.
_LOOK = Script(f"""
{_WINDOW}
local found = window(KEYS, {{ARGV[2]}})
local before = (found[1] or 0) * math.max(0, found[2]) / (ARGV[2] * 1000)
local passed = math.floor(before + (found[3] or 0)) < tonumber(ARGV[1])
return {{passed and 1 or 0, found}}, not passed
""")


class LimitWindow(NamedTuple):
    """State of a rate: calls left (-1: none, and this call is refused), and seconds until more are allowed."""

    limit: int
    remaining: int
    reset: float

    def after(self, *, passed: bool) -> LimitWindow:
        """Return the window after a call that was counted (`passed`) or refused."""
        return LimitWindow(self.limit, max(0, self.remaining) if passed else -1, self.reset)


def window_of(item: RateLimitItem, state: State) -> LimitWindow:
    """Compute a rate's window from its state in a storage; `remaining` is -1 when it is full."""
    limit, seconds = item.amount, item.get_expiry()
    before, before_left, count, left = state
    left -= seconds if left > seconds else 0  # a counter lives for two windows
    used = int(before * before_left / seconds + count)
    if used < limit:
        return LimitWindow(limit, limit - used, left)
    if count >= limit:  # room appears only as this count fades in the next window
        return LimitWindow(limit, -1, left + (1 - limit / count) * seconds)
    return LimitWindow(limit, -1, before_left - (limit - count) * seconds / before)


def tightest(windows: Iterable[LimitWindow]) -> LimitWindow | None:
    """Return the window with the smallest share left; None without windows."""
    return min(windows, key=lambda window: window.remaining / window.limit, default=None)


class LimitStorage(RedisStorage):
    """Redis storage of `limits` over a `RedisStore`: any address, lazy connection, one shared circuit breaker.

    Falls back to this process's memory while Redis is unavailable. Flask-Limiter's own fallback would last up to 32
    seconds after Redis is back, and fails all but one of the threads that detect the outage. `alone` receives whether
    memory counted.
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
        super().__init__("redis://", key_prefix=PREFIX)  # a client that never connects, see `get_connection`

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

    def call(
        self, item: RateLimitItem, key: str, read: Callable[[LimitWindow], None], *, counts: bool = True
    ) -> ScriptCall:
        """Build a trip's call that counts a call, or only looks, with the counters of `count`.

        `read` gets the window, with `remaining` -1 when it is full; from this process's memory where Redis is away.
        """

        def received(answer: Any) -> None:
            if answer is None:
                read(self.count(item, key) if counts else self.look(item, key))
                return
            self._alone(False)
            passed, state = answer
            before, before_left, count, left = [max(0, int(part or 0)) for part in state]
            window = window_of(item, (before, before_left / 1000, count, left / 1000))
            read(window.after(passed=passed == 1))

        counters = [f"{PREFIX}:{{{key}}}/-1", f"{PREFIX}:{{{key}}}"]
        return ScriptCall(_COUNT if counts else _LOOK, counters, (item.amount, item.get_expiry()), received)

    def count(self, item: RateLimitItem, key: str) -> LimitWindow:
        """Count a call and return its window; `remaining` is -1 when the call is refused."""
        passed = self.acquire_sliding_window_entry(key, item.amount, item.get_expiry())
        return self.look(item, key).after(passed=passed)

    def look(self, item: RateLimitItem, key: str) -> LimitWindow:
        """Return a window without counting."""
        return window_of(item, self.get_sliding_window(key, item.get_expiry()))

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
    """Per-user rate over all replicas, counted inside a run rather than per request: tokens and tool calls.

    A rate such as `60/minute` (or several: `60/minute;1000/day`); empty: no limit, no round trip.
    """

    def __init__(self, redis_store: RedisStore, name: str, rate: str) -> None:
        self._redis_store = redis_store
        self._storage = LimitStorage(redis_store=redis_store)
        self._name = name
        self._items = parse_many(rate) if rate else []

    def take(self, user_id: str) -> LimitWindow | None:
        """Count one call and return the tightest window; `remaining` is -1 when the call is refused. None: no limit."""
        windows: list[LimitWindow] = []
        trip = Trip(self._redis_store)
        trip.add(*self.calls(user_id, windows.append, counts=True))
        trip.send()
        return tightest(windows)

    def calls(
        self, user_id: str, read: Callable[[LimitWindow], None], *, counts: bool = False
    ) -> Iterator[ScriptCall]:
        """Build a trip's calls, one for each window; `remaining` is -1 when nothing is left."""
        for item in self._items:
            yield self._storage.call(item, self._key(item, user_id), read, counts=counts)

    def add(self, user_id: str, amount: int) -> None:
        """Count usage whether it fits or not."""
        for item in self._items if amount else ():
            key = self._key(item, user_id)
            self._storage.acquire_sliding_window_entry(key, UNBOUNDED, item.get_expiry(), amount)

    def _key(self, item: RateLimitItem, user_id: str) -> str:
        return f"{self._name}:{item.get_expiry()}:{user_id}"


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Rate limits that are counted inside a run.

    Tokens are known only after a call, so they are counted then, whatever the limit, and checked before the next run. A
    user may exceed the limit by the runs under way, and is then refused until enough of the usage is a window old.
    """

    tokens: SharedRateLimit
    tool: SharedRateLimit

    @classmethod
    def of(cls, redis_store: RedisStore, *, tokens: str = "", tool: str = "") -> RateLimits:
        return cls(SharedRateLimit(redis_store, "tokens", tokens), SharedRateLimit(redis_store, "tool", tool))

    def used(self, user_id: str, usage: Usage) -> None:
        """Count a model call's tokens, except those read from the provider's cache, which are free there too."""
        self.tokens.add(user_id, usage.input_tokens + usage.cache_creation_input_tokens + usage.output_tokens)
