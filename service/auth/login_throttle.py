"""Brute-force protection of sign-in: limits per account and address, and per account over unknown addresses.

- Per account and address, exponential backoff: after `FREE_FAILURES` wrong passwords the next attempt must wait 1 s,
  then 2 s, 4 s, … up to `MAX_WAIT`. A right password resets the pair.
- Per account, a budget of `BUDGET` attempts from addresses that have never signed in, refilled by one every `REFILL`
  seconds: many addresses guess no faster than one. Known addresses do not count, so an attacker cannot lock out an
  account's owner. An attempt takes from the budget before the password is checked and is refunded when right;
  otherwise parallel attempts would all pass before any of them is counted. One that could not be checked is refunded
  too.

Without Redis each process counts for itself.
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
from collections import OrderedDict
from typing import NamedTuple, TypeVar

from service.errors import RateLimited
from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.types import now_ms

FREE_FAILURES = 5  # wrong passwords per account and address without a wait
MAX_WAIT = 64  # seconds: 14 attempts in 15 minutes, fewer than the account's own 20
MEMORY_SECONDS = 3600  # wrong passwords are forgotten this long after the last one
BUDGET, REFILL = 20, 45  # attempts, and seconds until there is one more: 20 in 15 minutes
_MAX_IN_MEMORY = 10_000  # accounts, and pairs, held by a process without Redis
# More fields of an account than the addresses that may try it in MEMORY_SECONDS: 100 unknown ones by the budget, and
# those known.
_MOST_FIELDS = 256
_PREFIX = "slipway:attempts:2"
V = TypeVar("V")

# KEYS: the account's hash. Its field `full_at`: ms at which the budget is full again; one for each address: wrong
# passwords, ms of the earliest next attempt and of the last wrong password. ARGV: an address's field, whether its
# attempts count against the budget (1 or 0), then as named below.
_READ = """
local clock = redis.call('TIME') local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function pair(text)
  local n, t, seen = string.match(text or '0 0 0', '(%d+) (%d+) (%d+)')
  return tonumber(n), tonumber(t), tonumber(seen)
end
local n, t, seen = pair(redis.call('HGET', KEYS[1], ARGV[1]))
"""
# BUDGET, REFILL, MEMORY_SECONDS. Returns the ms to wait; 0: proceed.
_BEGIN = Script(f"""{_READ}
local budget, refill = tonumber(ARGV[3]), tonumber(ARGV[4]) * 1000
if now < t then return t - now end
if ARGV[2] == '1' then
  local full_at = math.max(tonumber(redis.call('HGET', KEYS[1], 'full_at') or 0), now) + refill
  if full_at - now > budget * refill then return full_at - now - budget * refill end
  redis.call('HSET', KEYS[1], 'full_at', full_at)
  redis.call('EXPIRE', KEYS[1], ARGV[5])
end
return 0
""")
# FREE_FAILURES, MAX_WAIT, MEMORY_SECONDS, _MOST_FIELDS.
_FAILED = Script(f"""{_READ}
local memory = tonumber(ARGV[5]) * 1000
if now >= seen + memory then n = 0 end
local over, wait = n - ARGV[3], 0
if over >= 0 then wait = math.min(tonumber(ARGV[4]), 2 ^ math.min(over, 30)) * 1000 end
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f %.0f %.0f', n + 1, now + wait, now))
redis.call('EXPIRE', KEYS[1], ARGV[5])
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[6]) then
  local all = redis.call('HGETALL', KEYS[1])
  for i = 1, #all, 2 do
    local _, _, last = pair(all[i + 1])
    if last and now >= last + memory then redis.call('HDEL', KEYS[1], all[i]) end
  end
end
return 0
""")
# REFILL, and whether the address's wrong passwords are forgotten (1 or 0).
_REFUND = Script("""
if ARGV[4] == '1' then redis.call('HDEL', KEYS[1], ARGV[1]) end
local full_at = ARGV[2] == '1' and redis.call('HGET', KEYS[1], 'full_at')
if full_at then redis.call('HSET', KEYS[1], 'full_at', full_at - ARGV[3] * 1000) end
return 0
""")


class LoginAttempt(NamedTuple):
    """Sign-in attempt. `known`: the account has signed in from this address before."""

    account: str
    network: str
    known: bool

    @property
    def key(self) -> str:
        """Redis key of the account's hash."""
        return _account_key(self.account)

    @property
    def field(self) -> str:
        """Field of the address in the account's hash."""
        return _digest(self.network)


class LoginThrottle:
    """Sign-in throttle over Redis, falling back to this process's memory."""

    def __init__(self, redis_store: RedisStore) -> None:
        self._redis_store = redis_store
        self._local = _InMemory()

    def begin(self, attempt: LoginAttempt) -> None:
        """Charge the account's budget before the check. Raises `RateLimited` when the attempt has to wait."""
        wait = self._run(_BEGIN, attempt, BUDGET, REFILL, MEMORY_SECONDS)
        if wait is None:
            wait = self._local.begin(attempt, now_ms())
        if wait > 0:
            raise RateLimited("Too many attempts to sign in.", retry_after=wait / 1000)

    def failed(self, attempt: LoginAttempt) -> None:
        if self._run(_FAILED, attempt, FREE_FAILURES, MAX_WAIT, MEMORY_SECONDS, _MOST_FIELDS) is None:
            self._local.failed(attempt, now_ms())

    def succeeded(self, attempt: LoginAttempt) -> None:
        """Record a right password: reset the pair, refund the account's budget."""
        if self._run(_REFUND, attempt, REFILL, 1) is None:
            self._local.refund(attempt, forget=True)

    def refund(self, attempt: LoginAttempt) -> None:
        """Refund the account's budget for a password that was not checked."""
        if self._run(_REFUND, attempt, REFILL, 0) is None:
            self._local.refund(attempt, forget=False)

    def forget(self, account: str) -> bool:
        """Delete what is counted for an account, which is found by its name. False: Redis is away."""
        key = _account_key(account)
        return self._redis_store.call(lambda client: client.delete(key) is not None, False)

    def _run(self, script: Script, attempt: LoginAttempt, *numbers: int) -> int | None:
        answer: int | None = self._redis_store.call(
            lambda client: script(client, (attempt.key,), attempt.field, int(not attempt.known), *numbers),
            None,
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
        with self._lock:
            not_before = self._pairs.get(_pair_of(attempt), _Pair()).not_before
            if now < not_before:
                return not_before - now
            if not attempt.known:
                full_at = max(self._full_at.get(attempt.key, 0), now) + REFILL * 1000
                if (wait := full_at - now - BUDGET * REFILL * 1000) > 0:
                    return wait
                _put(self._full_at, attempt.key, full_at)
            return 0

    def failed(self, attempt: LoginAttempt, now: int) -> None:
        with self._lock:
            name = _pair_of(attempt)
            pair = self._pairs.get(name, _Pair())
            wrong = 1 + (pair.wrong if now < pair.seen_at + MEMORY_SECONDS * 1000 else 0)
            wait = min(MAX_WAIT, 2 ** min(wrong - FREE_FAILURES - 1, 30)) if wrong > FREE_FAILURES else 0
            _put(self._pairs, name, _Pair(wrong, now + wait * 1000, now))

    def refund(self, attempt: LoginAttempt, *, forget: bool) -> None:
        with self._lock:
            if forget:
                self._pairs.pop(_pair_of(attempt), None)
            if not attempt.known and attempt.key in self._full_at:
                self._full_at[attempt.key] -= REFILL * 1000


def _pair_of(attempt: LoginAttempt) -> str:
    return f"{attempt.key} {attempt.field}"


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
