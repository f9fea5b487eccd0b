"""Semantic cache: questions with the same meaning, found by embedding vectors. Optional, used on a miss only.

Vectors are partitioned by everything an answer depends on but the question (owner of the answers, agent version,
model), and by the question's numbers and negations: "with 17 % and not at once" is never near "with 18 %". None of that
is sent to the endpoint, which gets the question's plain form only. Whoever asks pays for the look-up, which is in the
ledger without a run: a hit has none, and what a run costs is what its answer does.
"""

from __future__ import annotations

import hashlib
import re
from array import array
from operator import mul
from typing import Any

from service.cache.entries import CacheKey, Vector
from service.embeddings import Embeddings
from service.infra.redis import RedisStore
from service.infra.redis_client import Script

MAX_VECTORS = 200  # vectors per key: as many as can be compared in a few milliseconds
_FACTS = re.compile(
    r"[\w.,$€£+-]*\d[\w.,%€+-]*|n't\b"
    r"|\b(?:no|not|never|none|without|cannot|nicht|kein\w*|nie|ohne|ne|pas|jamais|sans|sin|nunca)\b"
)

# KEYS: hash. ARGV: field, vector, maximum fields, life in seconds. A full hash drops a random field for a new one.
_KEEP = Script("""
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  redis.call('HDEL', KEYS[1], redis.call('HRANDFIELD', KEYS[1]))
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
""")


class Semantic:
    """Vectors of questions in Redis. `threshold`: minimum cosine of two with the same meaning. Never raises."""

    def __init__(self, redis_store: RedisStore, embeddings: Embeddings, threshold: float) -> None:
        self._redis_store = redis_store
        self._embeddings = embeddings
        self._threshold = threshold

    def find(self, question: CacheKey) -> tuple[Vector | None, str | None]:
        """Return the question's vector and the key of the nearest question's answer; None for what is missing."""
        if question.plain is None or question.asker is None:
            return None, None
        vector = self._embeddings.of(question.asker).embed(question.plain)
        if vector is None:
            return None, None
        key = self._key(question)
        stored: Any = self._redis_store.call(lambda client: client.hgetall(key), default={})
        best = max(((_cosine(vector, raw), slot.decode()) for slot, raw in stored.items()), default=(0.0, ""))
        if best[0] < self._threshold:
            return vector, None
        return vector, question._replace(slot=best[1]).answer

    def keep(self, question: CacheKey, vector: Vector, seconds: int) -> None:
        key = self._key(question)
        values = (question.slot, vector.tobytes(), MAX_VECTORS, seconds)
        self._redis_store.call(lambda client: _KEEP(client, [key], *values), default=None)

    def _key(self, question: CacheKey) -> str:
        facts = "|".join([self._embeddings.name, *sorted(_FACTS.findall((question.plain or "").lower()))])
        return f"slipway:vectors:{question.scope}:{hashlib.sha256(facts.encode()).hexdigest()[:16]}"


def _cosine(vector: Vector, raw: bytes) -> float:
    """Compute the cosine of two unit vectors; 0 if their sizes differ."""
    other = array("f")
    if len(raw) != len(vector) * other.itemsize:
        return 0.0
    other.frombytes(raw)
    return float(sum(map(mul, vector, other)))
