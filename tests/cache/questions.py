"""Answer cache over a real Redis, its questions and its owners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from service.agents.definitions import AgentDefinition
from service.agents.spec import CacheSpec
from service.cache.answers import AnswerCache
from service.cache.entries import CacheEntry, CacheKey, Owner, Vector
from service.ids import new_id
from service.infra.redis import RedisStore
from service.infra.redis_trip import ScriptCall, Trip
from service.types import Caller, Run
from tests.conftest import RedisServer
from tests.runs.house import ADA, ASSISTANT, PLAIN, asked

SPEC = CacheSpec(ttl_seconds=60)
LETTERS = str.maketrans("0123456789_", "abcdefghijk")


@pytest.fixture
def redis_store(redis_server: RedisServer) -> Iterator[RedisStore]:
    with closing(RedisStore(redis_server.url, max_connections=8)) as store:
        yield store


@pytest.fixture
def cache(redis_store: RedisStore) -> AnswerCache:
    return AnswerCache(redis_store, PLAIN)


def question(
    cache: AnswerCache,
    text: Any,
    agent: AgentDefinition = ASSISTANT,
    caller: Caller = ADA,
    model: str = "m",
    **fields: Any,
) -> CacheKey:
    return cache.question(agent, asked(text, agent, **fields), caller, model)


def an_owner(user: str = "usr_ada") -> Owner:
    return Owner(new_id("run"), user, True)


def unique(text: str) -> str:
    """Redis is shared with other tests. No digits: they are facts."""
    return f"{text} {new_id('x').translate(LETTERS)}"


def find(cache: AnswerCache, about: CacheKey, me: Owner | None, after: str = "") -> CacheEntry:
    return cache.found(about, me, answer_to(cache, cache.look_up(about, me, after)))


def finish(
    cache: AnswerCache,
    about: CacheKey,
    me: Owner | None,
    run: Run,
    spec: CacheSpec,
    vector: Vector | None = None,
) -> int:
    """End a run; return how many wait for it."""
    step = cache.finish(about, me, run, spec, vector)
    return 0 if step is None else int(answer_to(cache, step) or 0)


def answer_to(cache: AnswerCache, step: ScriptCall) -> Any:
    trip = Trip(cache._redis_store)
    trip.add(step)
    trip.send()
    return step.answer
