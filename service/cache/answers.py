"""Answer cache in Redis: the same question to the same agent from the same caller is asked once.

One key holds the answer to all near-identical questions, with the digest of the one it was made for, so one look
tells `hit` from `near`. The same look finds the owner that is asking the model at this moment, or makes the asker it.
All keys of a question carry the same hash tag, so each script also runs on a cluster.
"""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any, Protocol

import orjson

from service.agents.definitions import AgentDefinition
from service.agents.spec import CacheSpec
from service.cache.entries import (
    CacheEntry,
    CacheKey,
    Owner,
    Vector,
    is_worth_keeping,
    outcome_of,
    read_answer,
    write_answer,
    write_outcome,
)
from service.cache.normalise import VERSION, Normaliser
from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.types import Caller, Run, RunRequest, message_text, now_ms

STALE_SECONDS = 86_400  # how long an answer is kept at least, where it may be given after its time
FLIGHT_MS = 5_000  # an owner that does not renew its flight for so long is gone
OUTCOME_SECONDS = 30  # how long those who wait can fetch an outcome

# KEYS: answer, flight. ARGV: now in ms, the owner to be ('' for none), life of a flight in ms, and the run whose
# failure the asker has waited for ('' for none). Returns the kept answer; unless that is fresh, the owner; and the
# failure of another owner since, so that many who come back one after the other do not all try.
_FIND = Script("""
local kept = redis.call('GET', KEYS[1])
if ARGV[2] == '' then return {kept, false} end
if kept and tonumber(string.match(kept, '^%d+')) > tonumber(ARGV[1]) then return {kept, false} end
local failed = ARGV[4] ~= '' and redis.call('HGET', KEYS[2], 'failed')
if failed and string.match(failed, '^%S+') ~= ARGV[4] then return {kept, false, failed} end
if redis.call('HSETNX', KEYS[2], 'leader', ARGV[2]) == 1 then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  return {kept, ARGV[2]}
end
redis.call('HINCRBY', KEYS[2], 'waiting', 1)
return {kept, redis.call('HGET', KEYS[2], 'leader')}
""")

# KEYS: answer, flight, outcome. ARGV: the owner ('' for none), the answer ('' for none) and its life in seconds,
# the outcome for those who wait and its life in seconds, and for how many ms it is remembered that this owner failed
# (0: it has not). Returns how many wait.
_FINISH = Script("""
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
if redis.call('HGET', KEYS[2], 'leader') ~= ARGV[1] then return 0 end
local waiting = tonumber(redis.call('HGET', KEYS[2], 'waiting') or 0)
redis.call('DEL', KEYS[2])
if tonumber(ARGV[6]) > 0 then
  redis.call('HSET', KEYS[2], 'failed', string.match(ARGV[1], '^%S+') .. ' ' .. ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
if waiting > 0 then redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[5]) end
return waiting
""")


class Nearest(Protocol):
    """Finds a question that means the same. Never raises."""

    def find(self, question: CacheKey) -> tuple[Vector | None, str | None]:
        """Return the vector of the question, and the key of the answer to the nearest one."""

    def keep(self, question: CacheKey, vector: Vector, seconds: int) -> None: ...


def cacheable(agent: AgentDefinition, request: RunRequest) -> bool:
    """Tell whether an answer may be cached: not within a session, nor with a person or a side effect involved."""
    return (
        agent.cache.ttl_seconds > 0
        and request.cache != "bypass"
        and request.session_id is None
        and len(request.messages) == 1
        and not agent.approvals
        and not any(tool.side_effects for tool in agent.tools.values())
    )


class AnswerCache:
    """Answers in Redis. Without Redis nothing is found and nothing is kept, and nobody waits for it."""

    def __init__(
        self,
        redis_store: RedisStore,
        plain: Normaliser,
        nearest: Nearest | None = None,
        *,
        longest: int = STALE_SECONDS,
    ) -> None:
        """`longest`: seconds that any answer is kept at most; 0: none is kept or looked for."""
        self._redis_store = redis_store
        self._longest = longest
        self._plain = plain
        self._nearest = nearest

    def takes(self, agent: AgentDefinition, request: RunRequest) -> bool:
        """Tell whether answers are kept at all, and this one may be."""
        return self._longest > 0 and cacheable(agent, request)

    def question(self, agent: AgentDefinition, request: RunRequest, caller: Caller, model: str) -> CacheKey:
        """Make the key of a cacheable request. The answer is the caller's own, unless the agent shares answers."""
        owner = "shared" if agent.cache.shared else caller.user_id
        asked = [request.context, request.max_tokens, request.effort, request.tier]
        if request.max_steps is not None:  # fewer steps may come to another answer
            asked.append(request.max_steps)
        parts = [agent.id, agent.version, model, owner, *asked]
        digest = hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS))
        (message,) = request.messages
        plain = self._plain.of(message_text(message)) if agent.cache.near and _is_text(message) else None
        exact = _extended(digest, b"=" + orjson.dumps(message, option=orjson.OPT_SORT_KEYS))
        slot = exact if plain is None else _extended(digest, b"~" + VERSION + b" " + plain.encode())
        return CacheKey(digest.hexdigest()[:32], exact, slot, plain)

    def find(self, question: CacheKey, me: Owner | None, after: str = "") -> CacheEntry:
        """Find `hit`, `near` or `miss`; `bypass` when Redis cannot say. On a miss `me` is the owner, unless another is.

        `after`: the run that `me` has seen fail; if another has failed since, that one is found with its outcome.
        """
        keys = (question.answer, question.flight)
        arguments = (now_ms(), str(me) if me is not None else "", FLIGHT_MS, after)
        found = self._redis_store.call(lambda client: _FIND(client, keys, *arguments), default=None)
        if found is None:
            return CacheEntry("bypass")
        kept, owner, *failed = found
        cache, answer, stale = read_answer(kept, question)
        if failed:
            run_id, _, outcome = failed[0].partition(b" ")
            return CacheEntry(cache, None, stale, Owner(run_id.decode(), "", False), outcome_of(outcome))
        entry = CacheEntry(cache, answer, stale, Owner.parse(owner) if owner else None)
        return self._nearest_to(question, entry) if entry.owner is not None and entry.owner == me else entry

    def finish(
        self, question: CacheKey, me: Owner | None, run: Run, spec: CacheSpec, vector: Vector | None = None
    ) -> int:
        """Keep the answer of a run that has ended, leave its outcome to those who wait for `me`, and count them."""
        ttl = min(spec.ttl_seconds, self._longest)
        answer, life = b"", max(ttl, STALE_SECONDS if spec.stale else 0)
        if is_worth_keeping(run):
            answer = b"%d %b " % (now_ms() + ttl * 1000, question.exact.encode()) + write_answer(run)
            if self._nearest is not None and vector is not None:
                self._nearest.keep(question, vector, ttl)
        owner = str(me) if me is not None else ""
        if not answer and not owner:
            return 0
        keys = (question.answer, question.flight, question.outcome(me.run_id if me else ""))
        outcome, is_answer = write_outcome(run)
        arguments = (owner, answer, life, outcome, OUTCOME_SECONDS, 0 if is_answer else FLIGHT_MS)
        return int(self._redis_store.call(lambda client: _FINISH(client, keys, *arguments), default=0))

    def _nearest_to(self, question: CacheKey, entry: CacheEntry) -> CacheEntry:
        """Look for a question that means the same: only the owner does."""
        if self._nearest is None or question.plain is None:
            return entry
        vector, key = self._nearest.find(question)
        if key is not None:
            raw: Any = self._redis_store.call(partial(_get, key=key), default=None)
            cache, answer, _ = read_answer(raw, question)
            if answer is not None:
                return entry._replace(cache=cache, answer=answer)
        return entry._replace(vector=vector)


def _is_text(message: dict[str, Any]) -> bool:
    content = message["content"]
    if isinstance(content, str):
        return True
    return len(content) == 1 and set(content[0]) == {"type", "text"}


def _extended(digest: Any, more: bytes) -> str:
    extended = digest.copy()
    extended.update(more)
    return str(extended.hexdigest()[:32])


def _get(client: Any, key: str) -> bytes | None:
    return client.get(key)  # type: ignore[no-any-return]
