"""Brute-force protection of sign-in: limits per account and address, and per account over unknown addresses.

- Per account and address, exponential backoff: after `FREE_FAILURES` wrong passwords the next attempt must wait 1 s,
  then 2 s, 4 s, … up to `MAX_WAIT`. A right password resets the pair.
- Per account, a budget of `BUDGET` attempts from addresses that have never signed in, refilled by one every `REFILL`
  seconds: many addresses guess no faster than one. Known addresses do not count, so an attacker cannot lock out an
  account's owner. An attempt takes from the budget before the password is checked and is refunded when right;
  otherwise parallel attempts would all pass before any of them is counted.

Without Redis each process counts for itself.
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
from collections import OrderedDict
from typing import NamedTuple, TypeVar

import redis

from service.errors import RateLimited
from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.types import now_ms

FREE_FAILURES = 5  # wrong passwords per account and address without a wait
MAX_WAIT = 64  # seconds: 14 attempts in 15 minutes, fewer than the account's own 20
MEMORY_SECONDS = 3600  # wrong passwords are forgotten this long after the last one
BUDGET, REFILL = 20, 45  # attempts, and seconds until there is one more: 20 in 15 minutes
_MAX_IN_MEMORY = 10_000  # accounts, and pairs, held by a process without Redis
_PREFIX = "slipway:attempts:1"
V = TypeVar("V")

# KEYS of all three: the pair's hash {n: wrong passwords, t: ms of the earliest next attempt}; for an unknown address
# also the ms at which the account's budget is full again. Both share a cluster slot.
_NOW = "local clock = redis.call('TIME') local now = clock[1] * 1000 + math.floor(clock[2] / 1000)\n"
# ARGV: BUDGET, REFILL. Returns the ms to wait; 0: proceed.
_BEGIN = Script(f"""{_NOW}
local budget, refill = tonumber(ARGV[1]), tonumber(ARGV[2]) * 1000
local t = tonumber(redis.call('HGET', KEYS[1], 't') or 0)
if now < t then return t - now end
if KEYS[2] then
  local whole = math.max(tonumber(redis.call('GET', KEYS[2]) or 0), now) + refill
  if whole - now > budget * refill then return whole - now - budget * refill end
  redis.call('SET', KEYS[2], whole, 'PX', whole - now)
end
return 0
""")
# ARGV: FREE_FAILURES, MAX_WAIT, MEMORY_SECONDS.
_FAILED = Script(f"""{_NOW}
local over = redis.call('HINCRBY', KEYS[1], 'n', 1) - ARGV[1] - 1
if over >= 0 then
  redis.call('HSET', KEYS[1], 't', now + math.min(tonumber(ARGV[2]), 2 ^ math.min(over, 30)) * 1000)
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 0
""")
# ARGV: REFILL.
_SUCCEEDED = Script("""
redis.call('DEL', KEYS[1])
local whole = KEYS[2] and redis.call('GET', KEYS[2])
if whole then redis.call('SET', KEYS[2], whole - ARGV[1] * 1000, 'KEEPTTL') end
return 0
""")


class LoginAttempt(NamedTuple):
    """Sign-in attempt. `known`: the account has signed in from this address before."""

    account: str
    network: str
    known: bool

    @property
    def keys(self) -> tuple[str, ...]:
        """Redis keys: the pair's, and the account's where its budget counts. The tag `{}` keeps both in one slot."""
        account = _account_key(self.account)
        pair = f"{account}:{_digest(self.network)}"
        return (pair,) if self.known else (pair, account)


class LoginThrottle:
    """Sign-in throttle over Redis, falling back to this process's memory."""

    def __init__(self, redis_store: RedisStore) -> None:
        self._redis_store = redis_store
        self._local = _InMemory()

    def begin(self, attempt: LoginAttempt) -> None:
        """Charge the account's budget before the check. Raises `RateLimited` when the attempt has to wait."""
        wait = self._run(_BEGIN, attempt, BUDGET, REFILL)
        if wait is None:
            wait = self._local.begin(attempt, now_ms())
        if wait > 0:
            raise RateLimited("Too many attempts to sign in.", retry_after=wait / 1000)

    def failed(self, attempt: LoginAttempt) -> None:
        if self._run(_FAILED, attempt, FREE_FAILURES, MAX_WAIT, MEMORY_SECONDS) is None:
            self._local.failed(attempt, now_ms())

    def succeeded(self, attempt: LoginAttempt) -> None:
        """Record a right password: reset the pair, refund the account's budget."""
        if self._run(_SUCCEEDED, attempt, REFILL) is None:
            self._local.succeeded(attempt)

    def forget(self, account: str) -> bool:
        """Delete what is counted for an account, which is found by its name. False: Redis is away."""
        key = _account_key(account)

        def delete(client: redis.Redis) -> bool:
            for each in [key, *client.scan_iter(match=f"{key}:*", count=500)]:
                client.delete(each)
            return True

        return self._redis_store.call(delete, False)

    def _run(self, script: Script, attempt: LoginAttempt, *numbers: int) -> int | None:
        answer: int | None = self._redis_store.call(
            lambda client: script(client, attempt.keys, *numbers), None
        )
        return answer


class _Pair(NamedTuple):
    """Failure count of one account at one address. Times are in ms."""

    wrong: int = 0
    not_before: int = 0
    seen_at: int = 0


class _InMemory:
    """In-memory throttle with the same rules; LRU eviction."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pairs: OrderedDict[str, _Pair] = OrderedDict()
        self._full_at: OrderedDict[str, int] = OrderedDict()  # ms at which an account's budget is full again

    def begin(self, attempt: LoginAttempt, now: int) -> int:
        """Return milliseconds to wait; 0: proceed."""
        pair, *accounts = attempt.keys
        with self._lock:
            not_before = self._pairs.get(pair, _Pair()).not_before
            if now < not_before:
                return not_before - now
            for account in accounts:
                full_at = max(self._full_at.get(account, 0), now) + REFILL * 1000
                if (wait := full_at - now - BUDGET * REFILL * 1000) > 0:
                    return wait
                _put(self._full_at, account, full_at)
            return 0

    def failed(self, attempt: LoginAttempt, now: int) -> None:
        with self._lock:
            name = attempt.keys[0]
            pair = self._pairs.get(name, _Pair())
            wrong = 1 + (pair.wrong if now < pair.seen_at + MEMORY_SECONDS * 1000 else 0)
            wait = min(MAX_WAIT, 2 ** min(wrong - FREE_FAILURES - 1, 30)) if wrong > FREE_FAILURES else 0
            _put(self._pairs, name, _Pair(wrong, now + wait * 1000, now))

    def succeeded(self, attempt: LoginAttempt) -> None:
        pair, *accounts = attempt.keys
        with self._lock:
            self._pairs.pop(pair, None)
            for account in accounts:
                if account in self._full_at:
                    self._full_at[account] -= REFILL * 1000


def _put(memory: OrderedDict[str, V], key: str, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _MAX_IN_MEMORY:
        memory.popitem(last=False)


def network_of(address: str) -> str:
    """Rate-limit key of an address: an IPv4 address itself, the /64 of an IPv6 one (one customer's block)."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{ipaddress.IPv6Address(int(parsed) >> 64 << 64)}/64"


def _account_key(account: str) -> str:
    return f"{_PREFIX}:{{{_digest(account)}}}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
