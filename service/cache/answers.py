"""Answer cache in Redis: the same question from the same caller to the same agent asks the model once.

One key holds the answer to all near-identical questions, with the digest of the question it was made for, so one
look-up tells `hit` from `near`. The same look-up finds the current owner of the question, or makes the caller the
owner. All keys of a question share a hash tag, so each script also runs on a cluster.
"""

from __future__ import annotations

import hashlib
from typing import Any

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
    write_entry,
    write_outcome,
)
from service.cache.normalise import VERSION, Normaliser
from service.cache.semantic import Semantic
from service.embeddings import asker
from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.infra.redis_trip import ScriptCall
from service.types import DEFAULT_WORKSPACE, Caller, Run, RunRequest, message_text, now_ms

STALE_SECONDS = 86_400  # minimum life of an answer that may be served stale
FLIGHT_MS = 5_000  # life of a flight without renewal, after which its owner counts as dead
OUTCOME_SECONDS = 30  # time for waiters to fetch an outcome

# KEYS: answer, flight. ARGV: now in ms, owner to set ('' for none), life of a flight in ms, and the run whose failure
# the caller has already seen ('' for none). Returns the stored answer; the owner, unless that answer is fresh; and the
# failure of another owner since, so that returning waiters do not all retry one after the other. Stops the trip unless
# the run is to ask the model itself.
_FIND = Script("""
local kept = redis.call('GET', KEYS[1])
if ARGV[2] == '' then return {kept, false} end
if kept and tonumber(string.match(kept, '^%d+')) > tonumber(ARGV[1]) then return {kept, false}, true end
local failed = ARGV[4] ~= '' and redis.call('HGET', KEYS[2], 'failed')
if failed and string.match(failed, '^%S+') ~= ARGV[4] then return {kept, false, failed}, true end
if redis.call('HSETNX', KEYS[2], 'leader', ARGV[2]) == 1 then
  redis.call('PEXPIRE', KEYS[2], ARGV[3])
  return {kept, ARGV[2]}
end
redis.call('HINCRBY', KEYS[2], 'waiting', 1)
return {kept, redis.call('HGET', KEYS[2], 'leader')}, true
""")

# KEYS: answer, flight, outcome. ARGV: owner ('' for none), answer ('' for none) and its life in seconds, outcome for
# the waiters and its life in seconds, and ms for which this owner's failure is remembered (0: it has not failed).
# Returns the number of waiters; without any, the trip stops before the announcement.
_FINISH = Script("""
if ARGV[2] ~= '' then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
if redis.call('HGET', KEYS[2], 'leader') ~= ARGV[1] then return 0, true end
local waiting = tonumber(redis.call('HGET', KEYS[2], 'waiting') or 0)
redis.call('DEL', KEYS[2])
if tonumber(ARGV[6]) > 0 then
  redis.call('HSET', KEYS[2], 'failed', string.match(ARGV[1], '^%S+') .. ' ' .. ARGV[4])
  redis.call('PEXPIRE', KEYS[2], ARGV[6])
end
if waiting > 0 then redis.call('SET', KEYS[3], ARGV[4], 'EX', ARGV[5]) end
return waiting, waiting == 0
""")


def cacheable(agent: AgentDefinition, request: RunRequest) -> bool:
    """Return whether an answer may be cached.

    Not in a session, nor with an approval, a side effect or a note about the caller involved.
    """
    return (
        agent.cache.ttl_seconds > 0
        and request.cache != "bypass"
        and request.session_id is None
        and len(request.messages) == 1
        and not request.client_tools
        and not request.stop_sequences
        and not agent.approvals
        and not any(tool.changes or tool.personal for tool in agent.tools.values())
    )


class AnswerCache:
    """Answers in Redis. Without Redis nothing is found or stored, and no run waits for it."""

    def __init__(
        self,
        redis_store: RedisStore,
        plain: Normaliser,
        nearest: Semantic | None = None,
        *,
        longest: int = STALE_SECONDS,
    ) -> None:
        """Set up the cache. `longest`: maximum seconds any answer is kept; 0: nothing is stored or looked up."""
        self._redis_store = redis_store
        self._longest = longest
        self._plain = plain
        self._nearest = nearest

    def takes(self, agent: AgentDefinition, request: RunRequest) -> bool:
        """Return whether the cache is on and this request's answer may be cached."""
        return self._longest > 0 and cacheable(agent, request)

    def question(
        self, agent: AgentDefinition, request: RunRequest, caller: Caller, model: str, workspace: str = ""
    ) -> CacheKey:
        """Build the key of a cacheable request. Its answer is the caller's, or their workspace's where shared.

        `workspace`: version of what their workspace adds to answers, its documents and guardrails.
        """
        owner = caller.user_id
        if agent.cache.shared:  # within the workspace
            default = caller.workspace_id == DEFAULT_WORKSPACE
            owner = "shared" if default else f"shared {caller.workspace_id}"
        asked: list[Any] = [request.context, request.max_tokens, request.effort, request.tier]
        if request.max_steps is not None:  # a lower step limit may change the answer
            asked.append(request.max_steps)
        if request.output_schema is not None:  # the agent's own is part of its version
            asked.append(request.output_schema)
        if request.instructions is not None:
            asked.append(request.instructions)
        if workspace:
            asked.append(["workspace", workspace])
        parts = [agent.id, agent.version, model, owner, *asked]
        digest = hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS))
        (message,) = request.messages
        plain = self._plain.of(message_text(message)) if agent.cache.near and _is_text(message) else None
        exact = _extended(digest, b"=" + orjson.dumps(message, option=orjson.OPT_SORT_KEYS))
        slot = exact if plain is None else _extended(digest, b"~" + VERSION + b" " + plain.encode())
        payer = asker(caller, agent.id, request.end_user)
        return CacheKey(digest.hexdigest()[:32], exact, slot, plain, payer)

    def look_up(self, question: CacheKey, me: Owner | None, after: str = "") -> ScriptCall:
        """Build a trip's call that looks a question up. On a miss `me` becomes the owner, unless there is one.

        `after`: the run that `me` has seen fail; if another has failed since, that owner is found with its outcome.
        """
        owner = str(me) if me is not None else ""
        return ScriptCall(_FIND, (question.answer, question.flight), (now_ms(), owner, FLIGHT_MS, after))

    def found(self, question: CacheKey, me: Owner | None, answer: Any) -> CacheEntry:
        """Parse the answer of `look_up`: `hit`, `near` or `miss`; `bypass` if Redis failed.

        Then `me` may be the owner all the same, as where the answer came too late.
        """
        if answer is None:
            return CacheEntry("bypass", owner=me)
        stored, owner, *failed = answer
        cache, fresh, stale = read_answer(stored, question)
        if failed:
            run_id, _, outcome = failed[0].partition(b" ")
            return CacheEntry(cache, None, stale, Owner(run_id.decode(), "", False), outcome_of(outcome))
        entry = CacheEntry(cache, fresh, stale, Owner.parse(owner) if owner else None)
        return self._nearest_to(question, entry) if entry.owner is not None and entry.owner == me else entry

    def finish(
        self, question: CacheKey, me: Owner | None, run: Run, spec: CacheSpec, vector: Vector | None = None
    ) -> ScriptCall | None:
        """Build a trip's call that stores the answer of an ended run, and its outcome for the waiters of `me`.

        None: there is nothing to store, and no flight to end.
        """
        ttl = min(spec.ttl_seconds, self._longest)
        answer, life = b"", max(ttl, STALE_SECONDS if spec.stale else 0)
        if is_worth_keeping(run):
            answer = write_entry(run, question, now_ms() + ttl * 1000)
            if self._nearest is not None and vector is not None:
                self._nearest.keep(question, vector, ttl)
        owner = str(me) if me is not None else ""
        if not answer and not owner:
            return None
        keys = (question.answer, question.flight, question.outcome(me.run_id if me else ""))
        outcome, is_answer = write_outcome(run)
        arguments = (owner, answer, life, outcome, OUTCOME_SECONDS, 0 if is_answer else FLIGHT_MS)
        return ScriptCall(_FINISH, keys, arguments)

    def _nearest_to(self, question: CacheKey, entry: CacheEntry) -> CacheEntry:
        """Search for a question with the same meaning; called by the owner only."""
        if self._nearest is None or question.plain is None:
            return entry
        vector, key = self._nearest.find(question)
        if key is not None:
            raw: Any = self._redis_store.call(lambda client: client.get(key), default=None)
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
