"""API keys that were looked up, cached in Redis for seconds: their callers, and that a key is not valid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import orjson

from service.auth.revocation import COMPLETE, KEY_CACHE_SECONDS, PROVES_WRITES, Revocations
from service.auth.revocation import KEY as DISTRUSTED
from service.infra.redis import RedisStore
from service.infra.redis_client import answered
from service.types import Caller

Found = tuple[Caller, int | None] | None  # caller of a secret, and its end (ms); None: not valid


class KeyCache:
    """Cache of keys by the digest of their secret, for all processes."""

    def __init__(self, redis_store: RedisStore, revocations: Revocations) -> None:
        self._redis_store = redis_store
        self._revocations = revocations

    def find(self, digest: str, look_up: Callable[[], tuple[Found, list[int]]]) -> Found:
        """Return a cached key, else what `look_up` finds and cache it.

        `look_up` returns the key and times (ms) after which it may be another. A key that is not valid is cached too:
        a revoked one sent repeatedly costs no query each time.
        """
        cached, distrusted, complete = self._redis_store.call(
            partial(_read, digest=digest), (None, None, None)
        )
        if cached and distrusted is None and self._revocations.trusted(complete):
            return _decoded(cached)
        found, unchanged_ms = look_up()
        if distrusted is None:
            value = orjson.dumps(found and [list(found[0]), found[1]])  # orjson knows no named tuples
            life_ms = min([KEY_CACHE_SECONDS * 1000, *unchanged_ms])
            self._redis_store.call(lambda client: client.set(_name(digest), value, px=life_ms), None)
        return found


def _read(client: Any, digest: str) -> tuple[bytes | None, bytes | None, bytes | None]:
    commands = (("GET", _name(digest)), ("HMGET", DISTRUSTED, digest, COMPLETE), PROVES_WRITES)
    cached, (distrusted, complete), _ = answered(client, *commands)
    return cached, distrusted, complete


def _name(digest: str) -> str:
    # 3: a role beside scopes. A release before would let a key with scopes of actions do all that its role may.
    return f"slipway:key:3:{digest}"


def _decoded(value: bytes) -> Found:
    cached = orjson.loads(value)
    if cached is None:
        return None
    fields, expires_at = cached
    caller = Caller(*fields)
    return caller._replace(scopes=tuple(caller.scopes)), expires_at
