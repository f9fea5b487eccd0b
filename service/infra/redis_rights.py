"""Rights at Redis, and why one is refused, in fixed words: for `/ready` and for logs, which quote no server.

The rights themselves are in docs/growing.md, as lines for an ACL.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
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
# A script's error is told as text, after the words of whatever server ran it; some have no kind of their own.
_WORDS = (
    ("max number of clients", "too many clients"),
    ("OOM command", FULL),
    ("READONLY", "read-only"),
    ("MISCONF", "cannot save to disk"),
    ("NOREPLICAS", "too few replicas"),
    ("unknown command 'SENTINEL'", "no sentinel"),
)
# Of an error that has no answer of Redis: what is wrong with the address, and not with the server. The first that fits.
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
_QUEUE = "slipway:jobs:ready"  # no queue of Celery's has this name
_LIFE = 60_000  # ms after which what was written for a look is gone
SHARDS = 16  # keys in as many slots: of a cluster's nodes hardly one has none of them
# KEYS: a sorted set and a hash. Answers the first command of our scripts that is refused, and why.
_SCRIPT = """
local commands = {
  {'TIME'}, {'ZADD', KEYS[1], 1, 'x'}, {'ZCARD', KEYS[1]}, {'ZREMRANGEBYSCORE', KEYS[1], 0, 0},
  {'HSETNX', KEYS[2], 'f', 0}, {'HINCRBY', KEYS[2], 'n', 1}, {'HEXISTS', KEYS[2], 'f'}, {'HLEN', KEYS[2]},
  {'HRANDFIELD', KEYS[2]}, {'PEXPIRE', KEYS[1], 60000}, {'PEXPIRE', KEYS[2], 60000}
}
for _, command in ipairs(commands) do
  local answer = redis.pcall(unpack(command))
  if type(answer) == 'table' and answer.err then return {command[1], answer.err} end
end
return {}
"""
_SHA = hashlib.sha1(b"not kept by any server", usedforsecurity=False).hexdigest()


def reason_of(error: BaseException) -> str:
    """Why a command failed, in words that quote nothing."""
    for one in _causes(error):
        # redis-py names no cause where a node refuses to tell a cluster's slots.
        if isinstance(one, RedisClusterException) and isinstance(one.__context__, NoPermissionError):
            return "may not: CLUSTER"
    for one in _causes(error):
        for kind, words in _KINDS:
            if isinstance(one, kind):
                return words
        if said := _of_text(str(one)):
            return said
        if isinstance(one, ResponseError):
            return MAY_NOT if is_not_allowed(one) else OTHER
        if words := next((words for sign, words in _ADDRESS if sign in str(one)), ""):
            return words
    return AWAY


def is_not_allowed(error: ResponseError) -> bool:
    """Whether the user's rights are the cause."""
    return isinstance(error, NoPermissionError) or any(words in str(error) for words in _NOT_ALLOWED)


def missing(client: redis.Redis) -> str:
    """Return what Redis refuses now of all that is wanted, and why; empty: nothing. One round trip.

    Raises `redis.RedisError` when it cannot be asked.
    """
    return _first_refused(client, [*_writes(), *_reads(), *_scripts()])


def missing_for_queue(client: redis.Redis) -> str:
    """Return the same of what Celery wants of its broker besides. Raises `redis.RedisError` when it cannot be asked."""
    return _first_refused(client, list(_queue()))


def _first_refused(client: redis.Redis, asked: Sequence[tuple[str, tuple[Any, ...]]]) -> str:
    for (kind, command), answer in zip(asked, exchange(client, lambda _: [c for _, c in asked]), strict=True):
        if isinstance(answer, NoScriptError):
            continue  # it may run scripts, and has not this one
        if isinstance(answer, ResponseError):
            return _told(kind, command[0], answer)
        if isinstance(answer, Exception):
            raise answer
        if command[0] == "EVAL" and answer:
            name, text = (part.decode() for part in answer)
            return _told("no scripts", f"EVAL with {name}", ResponseError(text))
    return ""


def asked(error: BaseException) -> str:
    """Why Redis cannot be asked at all. The one command that comes before all others is that for the database."""
    said = reason_of(error)
    return "may not: SELECT" if said == MAY_NOT and "'select'" in str(error) else said


def _told(kind: str, command: str, error: ResponseError) -> str:
    said = reason_of(error)
    return f"{kind}: {command}" if said == MAY_NOT else said


def writes_everywhere() -> list[tuple[Any, ...]]:
    """Return writes that change nothing, for each node of a cluster."""
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
    yield "may not read", ("HGET", f"{_KEY}:hash", "f")
    yield "may not read", ("HMGET", f"{_KEY}:hash", "f")
    yield "may not read", ("HGETALL", f"{_KEY}:hash")
    yield "may not read", ("ZRANGE", f"{_KEY}:set", 0, 0)
    yield "may not read", ("XRANGE", f"{_KEY}:stream", "-", "+", "COUNT", 1)
    yield "may not read", ("XREAD", "COUNT", 1, "STREAMS", f"{_KEY}:stream", 0)


def _scripts() -> Iterator[tuple[str, tuple[Any, ...]]]:
    yield "no scripts", ("EVALSHA", _SHA, 1, _KEY)
    yield "no scripts", ("EVAL", _SCRIPT, 2, f"{_KEY}:set", f"{_KEY}:hash2")


def _queue() -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Send a message, take it and give it back, in the commands of kombu's transport."""
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
    """The error, and what it came of."""
    one: BaseException | None = error
    for _ in range(5):
        if one is None:
            return
        yield one
        one = one.__cause__


def _of_text(text: str) -> str:
    return next((told for words, told in _WORDS if words in text), "")
