"""Deletion of the cached answers that one user caused, with the vectors that lead to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import redis

from service.infra.redis_client import answered

BATCH = 500  # keys per round trip
HEADER = 128  # bytes of an entry in which its user is
ANSWERS, VECTORS = "slipway:answer:", "slipway:vectors:"


def forget_answers(client: redis.Redis, user_id: str) -> int:
    """Delete the answers that a user caused; return how many. Raises `redis.RedisError`.

    Looks at the head of every answer in Redis: an index by user would cost each run a write. Entries of releases
    before it names no user are deleted too.
    """
    slots = set[bytes]()
    for keys in _keys(client, ANSWERS):
        heads = answered(client, *(("GETRANGE", key, 0, HEADER) for key in keys))
        theirs = [key for key, head in zip(keys, heads, strict=True) if _may_be_of(head, user_id)]
        if theirs:
            answered(client, *(("DEL", key) for key in theirs))
            slots.update(key.rpartition(b"{")[2].rstrip(b"}") for key in theirs)
    if slots:
        for keys in _keys(client, VECTORS):
            answered(client, *(("HDEL", key, *slots) for key in keys))
    return len(slots)


def _may_be_of(head: bytes, user_id: str) -> bool:
    parts = head.split(b" ", 3)
    return len(parts) > 2 and (parts[2] == user_id.encode() or not parts[2].startswith(b"usr_"))


def _keys(client: redis.Redis, prefix: str) -> Iterator[Sequence[bytes]]:
    """Yield all keys with a prefix in batches; of a cluster, those of every node."""
    batch: list[bytes] = []
    found: Any = client.scan_iter(match=f"{prefix}*", count=BATCH)
    for key in found:
        batch.append(key)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
