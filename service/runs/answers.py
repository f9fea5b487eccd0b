"""The cache of whole answers: the same question to the same agent, from the same caller, answered from Redis."""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import orjson

from service.agents.definitions import AgentDefinition
from service.cache import SpeedStore
from service.types import Caller, Run, RunRequest, RunStatus

Found = Literal["hit", "miss", "bypass"]
KEPT = ("output", "stop_reason", "model", "tier", "steps", "tools", "sources")


def cacheable(agent: AgentDefinition, request: RunRequest) -> bool:
    """A turn of a conversation is never cached, nor is an answer whose making changed something."""
    return (
        agent.cache.ttl_seconds > 0
        and request.cache != "bypass"
        and request.session_id is None
        and len(request.messages) == 1
        and not any(tool.side_effects for tool in agent.tools.values())
    )


def answer_key(agent: AgentDefinition, request: RunRequest, caller: Caller, model: str) -> str:
    """Everything the answer depends on, and whose it is: the caller's own, unless the agent shares answers."""
    scope = "shared" if agent.cache.shared else caller.user_id
    parts = [
        agent.id,
        agent.version,
        model,
        scope,
        list(request.messages),
        request.context,
        request.max_tokens,
        request.effort,
        request.tier,
    ]
    digest = hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return f"slipway:answer:{digest}"


class AnswerCache:
    """Answers in Redis. Redis gone: nothing is found and nothing is kept, and nobody waits for it."""

    def __init__(self, speed: SpeedStore) -> None:
        self._speed = speed

    def find(self, key: str) -> tuple[Found, dict[str, Any] | None]:
        """`hit` with the answer, `miss`, or `bypass` when Redis cannot say."""
        away = b""
        raw = self._speed.call(lambda client: client.get(key), default=away)
        if raw == away:
            return "bypass", None
        return ("hit", orjson.loads(raw)) if raw else ("miss", None)

    def keep(self, key: str, run: Run, seconds: int) -> None:
        """Keep a whole answer. A failed, cut or refused one is not worth having twice."""
        if run.status is not RunStatus.SUCCEEDED or run.result is None or run.result["stop_reason"] != "end_turn":
            return
        answer = orjson.dumps({name: run.result[name] for name in KEPT})
        self._speed.call(lambda client: client.set(key, answer, ex=seconds), default=None)
