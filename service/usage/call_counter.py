"""Rate limit count and a hash lookup (such as that of ended log-ins) in one Redis round trip."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from limits import RateLimitItem
from limits.storage import RedisStorage

from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.usage.rate_limits import PREFIX, LimitWindow, window_of

# KEYS: the previous and the current window's counter, and a hash. ARGV: limit, window in seconds, fields of the hash.
# Returns whether the call passed, the window, and the fields; if the first field exists, nothing is counted.
_COUNT = Script(f"""
local seen = {{}}
if KEYS[3] then seen = redis.call('HMGET', KEYS[3], unpack(ARGV, 3)) end
if seen[1] then return {{1, {{}}, unpack(seen)}} end
local function acquire(KEYS, ARGV)
{RedisStorage.SCRIPT_ACQUIRE_SLIDING_WINDOW.decode()}
end
local function window(KEYS, ARGV)
{RedisStorage.SCRIPT_SLIDING_WINDOW.decode()}
end
local passed = acquire(KEYS, {{ARGV[1], ARGV[2], 1}}) and 1 or 0
return {{passed, window(KEYS, {{ARGV[2]}}), unpack(seen)}}
""")


def count_call(
    redis_store: RedisStore, item: RateLimitItem, key: str, also: tuple[str, Sequence[str]] | None = None
) -> tuple[LimitWindow, Sequence[bytes | None] | None]:
    """Count a call. Return its window, with `remaining` -1 when it is refused, and the fields that were read.

    Uses the scripts and keys of `LimitStorage`. `also`: a hash and its fields to read; ignored on a cluster (fields
    None), where the hash is on another node. If the first field exists, nothing is counted. Raises `redis.RedisError`.
    """
    counters = [f"{PREFIX}:{{{key}}}/-1", f"{PREFIX}:{{{key}}}"]

    def work(client: redis.Redis) -> Any:
        if also is None or not isinstance(client, redis.Redis):
            return _COUNT(client, counters, item.amount, item.get_expiry())
        name, fields = also
        return _COUNT(client, [*counters, name], item.amount, item.get_expiry(), *fields)

    passed, state, *seen = redis_store.attempt(work)
    before, before_left, count, left = (max(0, int(part or 0)) for part in state or (0, 0, 0, 0))
    window = window_of(item, (before, before_left / 1000, count, left / 1000))
    return window.after(passed=passed == 1), seen or None
