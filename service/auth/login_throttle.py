"""How fast passwords may be guessed: per account and address, and per account over unknown addresses.

- Per account and address the first `FREE` wrong passwords cost no wait. After each further one the next attempt has
  to wait, 1 s, then 2 s, 4 s, … up to `LONGEST_WAIT`. A right password ends that.
- Per account, `BUDGET` attempts from addresses that it has never signed in from, refilled at one every `REFILL`
  seconds: many addresses guess no faster than one. Known addresses have no part in it, so nobody elsewhere can lock
  an account's owner out. An attempt takes from it before the password is looked at and gives back when it was right:
  otherwise many at the same moment would all pass a budget that none of them has taken from yet.

Without Redis each process counts for itself.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from typing import NamedTuple, TypeVar

from service.errors import RateLimited
from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.types import now_ms

FREE = 5  # wrong passwords per account and address without a wait
LONGEST_WAIT = 64  # seconds: 14 attempts in 15 minutes, fewer than the account's own 20
KEPT = 3600  # seconds that wrong passwords are remembered after the last one
BUDGET, REFILL = 20, 45  # attempts, and seconds until there is one more: 20 in 15 minutes
_MOST_IN_MEMORY = 10_000  # accounts, and pairs, that a process without Redis remembers
_PREFIX = "slipway:attempts:1"
V = TypeVar("V")

# KEYS of all: the pair's hash {n: wrong passwords, t: ms before which none is looked at}; and for an unknown address
# the account's moment in ms at which its budget is whole again. Both are of one slot.
_NOW = "local clock = redis.call('TIME') local now = clock[1] * 1000 + math.floor(clock[2] / 1000)\n"
# ARGV: BUDGET, REFILL. Answers the ms to wait; 0: go on.
_BEGIN = Script(
    _NOW
    + """
local budget, refill = tonumber(ARGV[1]), tonumber(ARGV[2]) * 1000
local t = tonumber(redis.call('HGET', KEYS[1], 't') or 0)
if now < t then return t - now end
if KEYS[2] then
  local whole = math.max(tonumber(redis.call('GET', KEYS[2]) or 0), now) + refill
  if whole - now > budget * refill then return whole - now - budget * refill end
  redis.call('SET', KEYS[2], whole, 'PX', whole - now)
end
return 0
"""
)
# ARGV: FREE, LONGEST_WAIT, KEPT.
_FAILED = Script(
    _NOW
    + """
local over = redis.call('HINCRBY', KEYS[1], 'n', 1) - ARGV[1] - 1
if over >= 0 then
  redis.call('HSET', KEYS[1], 't', now + math.min(tonumber(ARGV[2]), 2 ^ math.min(over, 30)) * 1000)
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 0
"""
)
# ARGV: REFILL.
_SUCCEEDED = Script("""
redis.call('DEL', KEYS[1])
local whole = KEYS[2] and redis.call('GET', KEYS[2])
if whole then redis.call('SET', KEYS[2], whole - ARGV[1] * 1000, 'KEEPTTL') end
return 0
""")


class LoginAttempt(NamedTuple):
    """One attempt to sign in. `known`: the account has signed in from this address before."""

    account: str
    network: str
    known: bool

    @property
    def keys(self) -> tuple[str, ...]:
        """The pair's, and the account's where its budget counts. The braces put them in one slot of a cluster."""
        account = f"{_PREFIX}:{{{_digest(self.account)}}}"
        pair = f"{account}:{_digest(self.network)}"
        return (pair,) if self.known else (pair, account)


class LoginThrottle:
    """Counts attempts to sign in, in Redis; without it in this process."""

    def __init__(self, redis_store: RedisStore) -> None:
        self._redis_store = redis_store
        self._own = _InMemory()

    def begin(self, attempt: LoginAttempt) -> None:
        """Take from the account's budget. Raises `RateLimited` where the attempt has to wait: it is not made then."""
        wait = self._run(_BEGIN, attempt, BUDGET, REFILL)
        if wait is None:
            wait = self._own.begin(attempt, now_ms())
        if wait > 0:
            raise RateLimited("Too many attempts to sign in.", retry_after=wait / 1000)

    def failed(self, attempt: LoginAttempt) -> None:
        """The password was wrong."""
        if self._run(_FAILED, attempt, FREE, LONGEST_WAIT, KEPT) is None:
            self._own.failed(attempt, now_ms())

    def succeeded(self, attempt: LoginAttempt) -> None:
        """The password was right: the address begins anew, the account gets back what was taken."""
        if self._run(_SUCCEEDED, attempt, REFILL) is None:
            self._own.succeeded(attempt)

    def _run(self, script: Script, attempt: LoginAttempt, *numbers: int) -> int | None:
        answer: int | None = self._redis_store.call(
            lambda client: script(client, attempt.keys, *numbers), None
        )
        return answer


class _Pair(NamedTuple):
    """Failures of one account at one address. Times are in ms."""

    wrong: int = 0
    not_before: int = 0
    seen_at: int = 0


class _InMemory:
    """The same rules over this process's memory; what was not used for longest is forgotten."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pairs: OrderedDict[str, _Pair] = OrderedDict()
        self._whole: OrderedDict[str, int] = OrderedDict()  # ms at which an account's budget is whole again

    def begin(self, attempt: LoginAttempt, now: int) -> int:
        """Milliseconds to wait; 0: go on."""
        pair, *accounts = attempt.keys
        with self._lock:
            not_before = self._pairs.get(pair, _Pair()).not_before
            if now < not_before:
                return not_before - now
            for account in accounts:
                whole = max(self._whole.get(account, 0), now) + REFILL * 1000
                if (wait := whole - now - BUDGET * REFILL * 1000) > 0:
                    return wait
                _remember(self._whole, account, whole)
            return 0

    def failed(self, attempt: LoginAttempt, now: int) -> None:
        with self._lock:
            name = attempt.keys[0]
            pair = self._pairs.get(name, _Pair())
            wrong = 1 + (pair.wrong if now < pair.seen_at + KEPT * 1000 else 0)
            wait = min(LONGEST_WAIT, 2 ** min(wrong - FREE - 1, 30)) if wrong > FREE else 0
            _remember(self._pairs, name, _Pair(wrong, now + wait * 1000, now))

    def succeeded(self, attempt: LoginAttempt) -> None:
        pair, *accounts = attempt.keys
        with self._lock:
            self._pairs.pop(pair, None)
            for account in accounts:
                if account in self._whole:
                    self._whole[account] -= REFILL * 1000


def _remember(memory: OrderedDict[str, V], key: str, value: V) -> None:
    memory[key] = value
    memory.move_to_end(key)
    if len(memory) > _MOST_IN_MEMORY:
        memory.popitem(last=False)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
