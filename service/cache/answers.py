"""The cache of whole answers in Redis: the same question to the same agent from the same caller, asked once.

One key holds the answer to all near-identical questions, with the digest of the one it was made for, so one look
tells `hit` from `near`. The same look says who is asking the model at this moment, or makes the asker the one who does.
All keys of a question carry the same hash tag, so each script also runs on a cluster.
"""

from __future__ import annotations

import hashlib
from array import array
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import orjson

from service.agents.definitions import AgentDefinition
from service.agents.spec import CacheSpec
from service.cache.normalise import VERSION, Normaliser
from service.errors import (
    AgentFault,
    ModelError,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    PriceUnknown,
    RunLimit,
    RunTimeout,
    SlipwayError,
    all_errors,
)
from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.types import Caller, Run, RunRequest, RunStatus, message_text, now_ms

Cache = Literal["hit", "near", "stale", "coalesced", "miss", "bypass"]
Vector: TypeAlias = "array[float]"
KEPT = ("output", "stop_reason", "model", "tier", "steps", "tools", "sources")
STALE_SECONDS = 86_400  # how long an answer is kept at least, where it may be given after its time
FLIGHT_MS = 5_000  # a leader that says nothing for so long is gone
LANDING_SECONDS = 30  # how long those who wait can fetch what came of it
MODEL_AWAY = (ModelUnavailable, ModelTimeout)  # when a stale answer is better than none
# What anybody would meet who asks the same, however often; and what perhaps not. All else, such as a spent budget,
# is the leader's own matter.
LASTING = (ModelRejected, PriceUnknown, AgentFault, RunLimit, RunTimeout)
_SHARED_CODES = {error.code for error in all_errors() if issubclass(error, (ModelError, *LASTING))}
_BY_CODE = {error.code: error for error in all_errors()}

# KEYS: answer, flight. ARGV: now in ms, who would lead ('' for nobody), life of a flight in ms, and the run whose
# failure the asker has waited for ('' for none). Answers what is kept; unless that is fresh, who leads; and what
# another leader has failed with since, so that many who come back one after the other do not all try.
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

# KEYS: answer, flight, landing. ARGV: who led ('' for nobody), the answer ('' for none) and its life in seconds,
# what those who wait are to hear and the life of that, and for how many ms it is remembered that this leader failed
# (0: it has not). Answers how many wait.
_LAND = Script("""
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


class Owner(NamedTuple):
    """The run that asks the model for all who ask the same. `live`: its events can be followed."""

    run_id: str
    user_id: str
    live: bool

    def __str__(self) -> str:
        return f"{self.run_id} {self.user_id} {self.live:d}"

    @classmethod
    def parse(cls, text: bytes) -> Owner:
        run_id, user_id, live = text.decode().split()
        return cls(run_id, user_id, live == "1")


class CacheKey(NamedTuple):
    """A question with everything its answer depends on. The fields are digests, but for `plain`."""

    scope: str  # the agent's version, the model, whose answers these are, and how they are asked for
    exact: str  # the question as it was asked
    slot: str  # the question in its plain form
    plain: str | None  # that form; None: only the same text is the same question

    @property
    def answer(self) -> str:
        return f"slipway:answer:{{{self.slot}}}"

    @property
    def flight(self) -> str:
        return f"slipway:flight:{{{self.slot}}}:{self.exact}"

    def landing(self, run_id: str) -> str:
        return f"slipway:landing:{{{self.slot}}}:{run_id}"


class Outcome(NamedTuple):
    """What came of a leader: an answer, an error that is everybody's, or neither."""

    answer: dict[str, Any] | None = None
    stale: bool = False
    error: SlipwayError | None = None


class CacheEntry(NamedTuple):
    """What the cache has: an answer to be given, one for when the model is away, or who is making one.

    `landing`: that leader has failed already.
    """

    cache: Cache
    answer: dict[str, Any] | None = None
    stale: dict[str, Any] | None = None
    leader: Owner | None = None
    landing: Outcome | None = None
    vector: Vector | None = None


class Nearest(Protocol):
    """Finds a question that means the same. Never raises."""

    def find(self, question: CacheKey) -> tuple[Vector | None, str | None]:
        """What the question means, and the key of the answer to the nearest one."""

    def keep(self, question: CacheKey, vector: Vector, seconds: int) -> None: ...


def cacheable(agent: AgentDefinition, request: RunRequest) -> bool:
    """A turn of a conversation is never cached, nor is an answer that a person or a change had part in."""
    return (
        agent.cache.ttl_seconds > 0
        and request.cache != "bypass"
        and request.session_id is None
        and len(request.messages) == 1
        and not agent.approvals
        and not any(tool.side_effects for tool in agent.tools.values())
    )


class AnswerCache:
    """Answers in Redis. Redis gone: nothing is found and nothing is kept, and nobody waits for it."""

    def __init__(
        self,
        redis_store: RedisStore,
        plain: Normaliser,
        nearest: Nearest | None = None,
        *,
        longest: int = STALE_SECONDS,
    ) -> None:
        """`longest` is for how many seconds any answer is kept at most; 0: none is kept or looked for."""
        self._redis_store = redis_store
        self._longest = longest
        self._plain = plain
        self._nearest = nearest

    def takes(self, agent: AgentDefinition, request: RunRequest) -> bool:
        """Whether answers are kept at all, and this one may be."""
        return self._longest > 0 and cacheable(agent, request)

    def question(self, agent: AgentDefinition, request: RunRequest, caller: Caller, model: str) -> CacheKey:
        """Of a cacheable request. The answer is the caller's own, unless the agent shares answers."""
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
        """`hit`, `near` or `miss`; `bypass` when Redis cannot say. On a miss `me` leads, unless another does.

        `after`: the run that `me` has seen fail; if another has failed since, that one is found with its landing.
        """
        keys = (question.answer, question.flight)
        asked = (now_ms(), str(me) if me is not None else "", FLIGHT_MS, after)
        said = self._redis_store.call(lambda client: _FIND(client, keys, *asked), default=None)
        if said is None:
            return CacheEntry("bypass")
        kept, leads, *failed = said
        cache, answer, stale = _read(kept, question)
        if failed:
            run_id, _, outcome = failed[0].partition(b" ")
            return CacheEntry(cache, None, stale, Owner(run_id.decode(), "", False), landing_of(outcome))
        found = CacheEntry(cache, answer, stale, Owner.parse(leads) if leads else None)
        return self._meant(question, found) if found.leader is not None and found.leader == me else found

    def land(
        self, question: CacheKey, me: Owner | None, run: Run, spec: CacheSpec, vector: Vector | None = None
    ) -> int:
        """Keep the answer of a run that has ended, and tell those who wait for `me`; how many they are."""
        ttl = min(spec.ttl_seconds, self._longest)
        answer, life = b"", max(ttl, STALE_SECONDS if spec.stale else 0)
        if _is_worth_keeping(run):
            answer = b"%d %b " % (now_ms() + ttl * 1000, question.exact.encode()) + _body(run)
            if self._nearest is not None and vector is not None:
                self._nearest.keep(question, vector, ttl)
        leader = str(me) if me is not None else ""
        if not answer and not leader:
            return 0
        keys = (question.answer, question.flight, question.landing(me.run_id if me else ""))
        outcome, is_answer = _outcome(run)
        told = (leader, answer, life, outcome, LANDING_SECONDS, 0 if is_answer else FLIGHT_MS)
        return int(self._redis_store.call(lambda client: _LAND(client, keys, *told), default=0))

    def _meant(self, question: CacheKey, found: CacheEntry) -> CacheEntry:
        """The leader alone also looks for a question that means the same."""
        if self._nearest is None or question.plain is None:
            return found
        vector, key = self._nearest.find(question)
        if key is not None:
            raw: Any = self._redis_store.call(partial(_get, key=key), default=None)
            cache, answer, _ = _read(raw, question)
            if answer is not None:
                return found._replace(cache=cache, answer=answer)
        return found._replace(vector=vector)


def landing_of(raw: bytes) -> Outcome:
    """What a leader left for those who wait."""
    said = orjson.loads(raw)
    error = said.get("error")
    if error is not None:
        kind = _BY_CODE.get(error["code"], ModelError)
        return Outcome(error=kind(error["detail"], retry_after=error.get("retry_after")))
    return Outcome(said.get("answer"), said.get("stale", False))


def _read(
    raw: bytes | None, question: CacheKey
) -> tuple[Cache, dict[str, Any] | None, dict[str, Any] | None]:
    """How a kept answer fits, the answer if it is fresh, and else as a stale one."""
    if not raw:
        return "miss", None, None
    until, exact, body = raw.split(b" ", 2)
    answer = orjson.loads(body)
    if int(until) <= now_ms():
        return "miss", None, answer
    return ("hit" if exact.decode() == question.exact else "near"), answer, None


def _outcome(run: Run) -> tuple[bytes, bool]:
    """For `landing_of`, and whether it is an answer. A cancelled run says nothing, nor does one whose answer a budget
    of its own cut short."""
    if run.status is RunStatus.SUCCEEDED and run.result and "max_tokens_clamped" not in run.result:
        return b'{"stale":%b,"answer":%b}' % (b"true" if run.cache == "stale" else b"false", _body(run)), True
    if run.status is RunStatus.FAILED and run.error and run.error["code"] in _SHARED_CODES:
        error = {name: run.error.get(name) for name in ("code", "detail", "retry_after")}
        return orjson.dumps({"error": error}), False
    return b"{}", False


def _is_worth_keeping(run: Run) -> bool:
    """An answer the model has given now, and whole. A cut or refused one is not worth having twice."""
    made = run.status is RunStatus.SUCCEEDED and run.cache in ("miss", "bypass")
    return made and run.result is not None and run.result["stop_reason"] == "end_turn"


def _body(run: Run) -> bytes:
    assert run.result is not None
    return orjson.dumps({name: run.result[name] for name in KEPT})


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
