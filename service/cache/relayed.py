"""Cache of relayed answers in Redis: the bytes that a model sent to a user, for the same body from the same user.

A request takes part by its header `Cache-Control: max-age=…` alone. See docs/adr/0054-relayed-bytes-guarded.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.infra.redis_trip import ScriptCall
from service.llm.relay import ChatRequest, RelayedRequest
from service.text import exact_json, numerals
from service.types import Caller, Run, RunStatus, now_ms

MOST_BYTES = 256 * 1024  # of an answer that is kept
MOST_ANSWERS = 64  # of one user: the oldest goes first
_MAX_AGE = re.compile(r"max-age=([0-9]{1,9})")

# KEYS: the answer. ARGV: the earliest ms it may be from. Returns an empty text where there is none.
_FIND = Script("""
local kept = redis.call('GET', KEYS[1])
if kept and tonumber(string.match(kept, '^%d+')) >= tonumber(ARGV[1]) then return kept, true end
return ''
""")
# KEYS: the answer, the keys of its user's answers. ARGV: the answer, its life in seconds, now in ms, most answers.
_KEEP = Script("""
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('ZADD', KEYS[2], ARGV[3], KEYS[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
local over = redis.call('ZCARD', KEYS[2]) - tonumber(ARGV[4])
if over > 0 then
  redis.call('DEL', unpack(redis.call('ZRANGE', KEYS[2], 0, over - 1)))
  redis.call('ZREMRANGEBYRANK', KEYS[2], 0, over - 1)
end
return over
""")


class Freshness(NamedTuple):
    """Age in seconds that a kept answer may have; 0: none is asked for, and the new one is kept."""

    max_age: int

    @classmethod
    def of(cls, header: str) -> Freshness | None:
        """Read a request's `Cache-Control`. None: the request takes no part."""
        told = [one.strip().lower() for one in header.split(",")]
        ages = [found[1] for one in told if (found := _MAX_AGE.fullmatch(one))]
        if "no-store" in told or not ages or int(ages[-1]) == 0:
            return None
        return cls(0 if "no-cache" in told else int(ages[-1]))


@dataclass(slots=True)
class RelayedLookup:
    """Look-up of one relayed call; `call` is for its trip. `cache` is the label of the answer."""

    key: str
    user_id: str
    call: ScriptCall | None

    @property
    def answer(self) -> bytes | None:
        found: bytes | None = self.call.answer if self.call is not None else None
        return found.split(b" ", 3)[3] if found else None

    @property
    def cost(self) -> int:
        """Nano-dollars that the answer had cost; 0 of an entry from a release before."""
        head = self.call.answer.split(b" ", 2) if self.call is not None and self.call.answer else (b"", b"")
        try:
            return int(numerals.amount(head[1].decode()))
        except ValueError:
            return 0

    @property
    def cache(self) -> str:
        if self.answer is not None:
            return "hit"
        return "bypass" if self.call is not None and self.call.answer is None else "miss"  # Redis is away


class RelayedAnswers:
    """Relayed answers in Redis, each of one user. Without Redis none is found or kept. One per process."""

    def __init__(self, redis_store: RedisStore, longest: int) -> None:
        """`longest`: seconds that an answer is kept at most; 0: none is."""
        self._redis_store = redis_store
        self._longest = longest

    def look_up(
        self, caller: Caller, request: RelayedRequest, freshness: Freshness | None, rails: str = ""
    ) -> RelayedLookup | None:
        """Begin a look-up. `rails`: digest of the guardrails on the answer. None: the call takes no part."""
        if freshness is None or not self._longest:
            return None
        parts = [
            caller.workspace_id,
            caller.user_id,
            type(request).__name__,
            request.model,
            request.betas,
            rails,
        ]
        if isinstance(request, ChatRequest):
            parts.append(str(request.tells_usage))
        digest = hashlib.sha256(orjson.dumps(parts))
        digest.update(exact_json.dumps(exact_json.loads(request.body), option=orjson.OPT_SORT_KEYS))
        key = f"slipway:answer:{{{caller.user_id}}}:relayed:{digest.hexdigest()}"
        earliest = now_ms() - 1000 * freshness.max_age
        call = ScriptCall(_FIND, (key,), (earliest,)) if freshness.max_age else None
        return RelayedLookup(key, caller.user_id, call)

    def recorded(self, lookup: RelayedLookup, run: Run, pieces: Iterator[bytes]) -> Iterator[bytes]:
        """Pass the pieces of an answer on, and keep them once their run has succeeded."""
        kept, room = list[bytes](), MOST_BYTES
        for piece in pieces:
            room -= len(piece)
            if room >= 0:
                kept.append(piece)
            yield piece
        if room >= 0 and run.status is RunStatus.SUCCEEDED and run.error is None:
            self._keep(lookup, b"".join(kept), run.cost_nano)

    def _keep(self, lookup: RelayedLookup, body: bytes, cost: int) -> None:
        now, user_id = now_ms(), lookup.user_id.encode()
        value = b"%d %d %b %b" % (now, cost, user_id, body)  # its head is read by `service.cache.forget`
        keys = (lookup.key, f"slipway:relayed:{{{lookup.user_id}}}")
        arguments: tuple[Any, ...] = (value, self._longest, now, MOST_ANSWERS)
        self._redis_store.call(lambda client: _KEEP(client, keys, *arguments), default=None)
