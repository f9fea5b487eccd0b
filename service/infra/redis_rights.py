"""Redis rights check, and reasons of refusals in fixed words: `/ready` and logs quote no server.

docs/growing.md lists the rights as lines for an ACL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import redis
from redis.exceptions import (
    AuthenticationError,
    ClusterDownError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
)

from service.infra.redis_client import exchange

AWAY, FULL, OTHER, MAY_NOT = "away", "full", "refuses", "may not"
_KINDS = (
    (AuthenticationError, "wrong password"),
    (OutOfMemoryError, FULL),
    (ReadOnlyError, "read-only"),
    (ClusterDownError, "cluster down"),
)
# Substrings of errors without a class of their own, and of errors that a script returns as text.
_WORDS = (
    ("max number of clients", "too many clients"),
    ("OOM command", FULL),
    ("READONLY", "read-only"),
    ("MISCONF", "cannot save to disk"),
    ("NOREPLICAS", "too few replicas"),
    ("unknown command 'SENTINEL'", "no sentinel"),
)
# Substrings of errors before any answer of Redis: faults of the address, not of the server. The first match counts.
_ADDRESS = (
    ("Hostname mismatch", "certificate of another name"),
    ("IP address mismatch", "certificate of another name"),
    ("CERTIFICATE_VERIFY_FAILED", "certificate not trusted"),
    ("[SSL", "TLS failed"),
    ("auth:AuthenticationError", "wrong password of the sentinels"),
    ("Cluster mode is not enabled", "no cluster"),
)
_NOT_ALLOWED = ("NOPERM", "ACL failure", "no permissions", "No permissions", "has no permissions")
_KEY = "slipway:ready:{0}"
_QUEUE = "slipway:jobs:ready"  # not a name of any Celery queue
_LIFE = 60_000  # ms until keys written by a check expire
SHARDS = 16  # keys in as many slots: of a cluster's nodes hardly one has none of them
# KEYS: a sorted set, a hash, and two counters as those of the `limits` library.
# Answers the first command of our scripts that is refused, and why.
_SCRIPT = """
local commands = {
  {'TIME'}, {'ZADD', KEYS[1], 1, 'x'}, {'ZCARD', KEYS[1]}, {'ZREMRANGEBYSCORE', KEYS[1], 0, 0},
  {'HSETNX', KEYS[2], 'f', 0}, {'HINCRBY', KEYS[2], 'n', 1}, {'HEXISTS', KEYS[2], 'f'}, {'HLEN', KEYS[2]},
  {'HRANDFIELD', KEYS[2]}, {'PEXPIRE', KEYS[1], 60000}, {'PEXPIRE', KEYS[2], 60000},
  {'SET', KEYS[3], 0, 'PX', 60000}, {'INCRBY', KEYS[3], 1}, {'EXISTS', KEYS[3]}, {'PTTL', KEYS[3]},
  {'RENAME', KEYS[3], KEYS[4]}
}
for _, command in ipairs(commands) do
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then return {command[1], answer.err} end
end
return {}
"""
_SCRIPT_KEYS = (f"{_KEY}:set", f"{_KEY}:hash2", f"{_KEY}:count", f"{_KEY}:count2")
_SHA = hashlib.sha1(b"not kept by any server", usedforsecurity=False).hexdigest()


def reason_of(error: BaseException) -> str:
    """Name the reason of a failed command in fixed words, which quote no message."""
    for cause in _causes(error):
        # redis-py sets no cause where a node refuses CLUSTER SLOTS.
        if isinstance(cause, RedisClusterException) and isinstance(cause.__context__, NoPermissionError):
            return "may not: CLUSTER"
    for cause in _causes(error):
        for kind, reason in _KINDS:
            if isinstance(cause, kind):
                return reason
        if reason := _match(_WORDS, str(cause)):
            return reason
        if isinstance(cause, ResponseError):
            return MAY_NOT if is_not_allowed(cause) else OTHER
        if reason := _match(_ADDRESS, str(cause)):
            return reason
    return AWAY


def is_not_allowed(error: ResponseError) -> bool:
    """Return whether a missing right is the cause."""
    return isinstance(error, NoPermissionError) or any(words in str(error) for words in _NOT_ALLOWED)


def missing(client: redis.Redis) -> str:
    """Check all commands in use in one round trip; return the first refused and why, or an empty string.

    Raises `redis.RedisError` when Redis does not answer.
    """
    return _first_refused(client, [*_writes(), *_reads(), *_scripts()])


def missing_for_queue(client: redis.Redis) -> str:
    """Check the commands of Celery's broker, as `missing` does."""
    return _first_refused(client, list(_queue()))


def _first_refused(client: redis.Redis, checks: Sequence[tuple[str, tuple[Any, ...]]]) -> str:
    answers = exchange(client, lambda _: [command for _, command in checks])
    for (kind, command), answer in zip(checks, answers, strict=True):
        if isinstance(answer, NoScriptError):
            continue  # scripts are allowed, and this one is not cached
        if isinstance(answer, ResponseError):
            return _refusal(kind, command[0], answer)
        if isinstance(answer, Exception):
            raise answer
        if command[0] == "EVAL" and answer:
            name, text = (part.decode() for part in answer)
            return _refusal("no scripts", f"EVAL with {name}", ResponseError(text))
    return ""


def connection_fault(error: BaseException) -> str:
    """Name the reason of a failed connection; SELECT is its only command that a right can forbid."""
    reason = reason_of(error)
    return "may not: SELECT" if reason == MAY_NOT and "'select'" in str(error) else reason


def _refusal(kind: str, command: str, error: ResponseError) -> str:
    reason = reason_of(error)
    return f"{kind}: {command}" if reason == MAY_NOT else reason


def writes_everywhere() -> list[tuple[Any, ...]]:
    """Build writes of probe keys that reach every node of a cluster."""
    return [("SET", f"slipway:ready:{{{number}}}", "", "PX", _LIFE) for number in range(SHARDS)]


def _writes() -> Iterator[tuple[str, tuple[Any, ...]]]:
    for write in writes_everywhere():
        yield "may not write", write
    yield "may not write", ("HSET", f"{_KEY}:hash", "f", "v")
    yield "may not write", ("HDEL", f"{_KEY}:hash", "f")
    yield "may not write", ("XADD", f"{_KEY}:stream", "MAXLEN", 1, "*", "f", "v")
    yield "may not write", ("EXPIRE", f"{_KEY}:stream", _LIFE // 1000)
    yield "may not write", ("PEXPIRE", f"{_KEY}:stream", _LIFE)
    yield "may not write", ("ZREM", f"{_KEY}:set", "none")
    yield "may not write", ("DEL", f"{_KEY}:none")


def _reads() -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield "may not read", ("PING",)
    yield "may not read", ("GET", _KEY)
    yield "may not read", ("GETRANGE", _KEY, 0, 0)
    yield "may not read", ("SCAN", 0, "COUNT", 1)
    yield "may not read", ("HGET", f"{_KEY}:hash", "f")
    yield "may not read", ("HMGET", f"{_KEY}:hash", "f")
    yield "may not read", ("HGETALL", f"{_KEY}:hash")
    yield "may not read", ("ZRANGE", f"{_KEY}:set", 0, 0)
    yield "may not read", ("XRANGE", f"{_KEY}:stream", "-", "+", "COUNT", 1)
    yield "may not read", ("XREAD", "COUNT", 1, "STREAMS", f"{_KEY}:stream", 0)


def _scripts() -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield "no scripts", ("EVALSHA", _SHA, 1, _KEY)
    yield "no scripts", ("EVAL", _SCRIPT, len(_SCRIPT_KEYS), *_SCRIPT_KEYS)


def _queue() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """List the commands of kombu's transport: send a message, receive it, restore it."""
    yield "may not write", ("LPUSH", _QUEUE, "x")
    yield "may not read", ("LLEN", _QUEUE)
    yield "may not read", ("BRPOP", _QUEUE, 0.01)
    yield "may not write", ("RPUSH", _QUEUE, "x")
    yield "may not write", ("DEL", _QUEUE)
    yield "may not write", ("WATCH", _QUEUE)
    yield "may not write", ("UNWATCH",)
    yield "may not write", ("MULTI",)
    yield "may not write", ("EXEC",)
    yield "no scripts", ("SCRIPT", "LOAD", "return 1")
    yield "may not write", ("PUBLISH", _QUEUE, "x")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and its chain of causes, five at most."""
    cause: BaseException | None = error
    for _ in range(5):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _match(reasons: Iterable[tuple[str, str]], text: str) -> str:
    return next((reason for part, reason in reasons if part in text), "")
