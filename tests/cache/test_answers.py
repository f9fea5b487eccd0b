"""Answer cache over a real Redis: keys, hits, waiters and life of the entries."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

from service.agents.spec import CacheSpec
from service.cache.answers import AnswerCache, cacheable
from service.cache.entries import CacheEntry, CacheKey, Outcome, outcome_of, write_outcome
from service.errors import ModelRejected, ModelTimeout, ModelUnavailable
from service.infra.redis import RedisStore
from service.types import Run, RunStatus
from tests.cache.questions import SPEC, an_owner, cache, find, finish, question, redis_store, unique
from tests.runs.house import ADA, ANALYST, ASSISTANT, BOB, PLAIN, SUPPORT, answered, asked, failed, run_of

__all__ = ["cache", "redis_store"]


def keep(cache: AnswerCache, about: CacheKey, output: str = "An answer.", spec: CacheSpec = SPEC) -> None:
    finish(cache, about, None, answered(run_of(asked("")), output), spec)


def test_hit_near_and_miss(cache: AnswerCache) -> None:
    text = unique("What is new,")
    about = question(cache, text)
    assert find(cache, about, None) == CacheEntry("miss")
    keep(cache, about)
    hit = find(cache, about, an_owner())
    assert (hit.cache, hit.owner) == ("hit", None)
    assert hit.answer is not None and hit.answer["output"] == "An answer."
    near = find(cache, question(cache, f"Hi,  {text.title()}, please!"), an_owner())
    assert (near.cache, near.owner, near.answer) == ("near", None, hit.answer)
    assert find(cache, question(cache, f"{text} not"), None).cache == "miss"


def test_shared_answers_stay_in_their_workspace(cache: AnswerCache) -> None:
    """Neither an answer nor a flight is that of another workspace, also of a near question."""
    text = unique("What is shared,")
    shared = replace(ASSISTANT, cache=CacheSpec(ttl_seconds=60, shared=True))
    elsewhere = ADA._replace(workspace_id="wsp_acme")
    about, other = (question(cache, text, shared, caller) for caller in (BOB, elsewhere))
    assert question(cache, text, shared, ADA)._replace(asker=about.asker) == about
    assert {about.slot, about.flight, about.scope}.isdisjoint({other.slot, other.flight, other.scope})
    eve = question(cache, text, shared, elsewhere._replace(user_id="usr_eve"))
    assert eve._replace(asker=other.asker) == other
    owner = an_owner()
    assert find(cache, about, owner).owner == owner
    second = an_owner()
    assert find(cache, other, second).owner == second, "it does not wait for that of the other"
    keep(cache, about)
    assert find(cache, about, None).cache == "hit"
    assert find(cache, other, None).cache == "miss"
    near = question(cache, f"Hi, {text}!", shared, elsewhere)
    assert find(cache, near, None).cache == "miss"


def test_an_agent_may_keep_to_the_very_same_text(cache: AnswerCache) -> None:
    text = unique("What is it")
    exact = replace(ASSISTANT, cache=CacheSpec(ttl_seconds=60, near=False))
    keep(cache, question(cache, text, exact))
    assert find(cache, question(cache, text, exact), None).cache == "hit"
    assert find(cache, question(cache, f"{text}?", exact), None).cache == "miss"


def test_blocks_are_text_only_when_they_are_nothing_else(cache: AnswerCache) -> None:
    plain = question(cache, [{"type": "text", "text": "What is it?"}])
    assert plain.plain == "what is it"
    marked = [{"type": "text", "text": "What is it?", "citations": []}]
    assert question(cache, marked).plain is None
    assert (
        question(cache, [{"type": "text", "text": "What"}, {"type": "text", "text": "is it?"}]).plain is None
    )


@pytest.mark.parametrize(
    "other",
    [
        {"caller": BOB},
        {"agent": replace(ASSISTANT, version="another")},
        {"agent": replace(ASSISTANT, id="another")},
        {"model": "another"},
        {"context": {"plan": "team"}},
        {"max_tokens": 7},
        {"effort": "low"},
        {"max_steps": 1},
        {"tier": "complex"},
    ],
)
def test_whatever_an_answer_depends_on_is_in_its_key(cache: AnswerCache, other: dict[str, Any]) -> None:
    text = unique("What is it?")
    keep(cache, question(cache, text))
    for form in (text, text.upper()):
        about = question(cache, form, **other)
        assert find(cache, about, None).cache == "miss"
        assert about.scope != question(cache, form).scope


def test_an_agent_that_shares_answers_shares_them(cache: AnswerCache) -> None:
    text = unique("What is it?")
    keep(cache, question(cache, text, SUPPORT, ADA))
    assert find(cache, question(cache, text, SUPPORT, BOB), None).cache == "hit"


def test_incomplete_answers_are_not_stored(cache: AnswerCache) -> None:
    about = question(cache, unique("What is it?"))
    request = asked("")
    for run in (
        answered(run_of(request), stop_reason="max_tokens"),
        answered(run_of(request), stop_reason="refusal"),
        answered(run_of(request, cache="stale")),
        answered(run_of(request, cache="near")),
        failed(run_of(request), "model_error"),
        run_of(request),
    ):
        finish(cache, about, None, run, SPEC)
        assert find(cache, about, None) == CacheEntry("miss")


def test_a_stale_answer_outlives_its_time(cache: AnswerCache, redis_store: RedisStore) -> None:
    about = question(cache, unique("What is it?"))
    keep(cache, about, spec=CacheSpec(ttl_seconds=60, stale=True))
    assert 80_000 < int(redis_store.client.ttl(about.answer)) <= 86_400
    raw: Any = redis_store.client.get(about.answer)
    until, rest = raw.split(b" ", 1)
    redis_store.client.set(about.answer, b"%d %b" % (int(until) - 60_001, rest))
    me = an_owner()
    found = find(cache, about, me)
    assert (found.cache, found.answer, found.owner) == ("miss", None, me)
    assert found.stale is not None and found.stale["output"] == "An answer."
    keep(cache, about, "A newer one.", SPEC)
    assert find(cache, about, None).answer == {**found.stale, "output": "A newer one."}
    assert int(redis_store.client.ttl(about.answer)) <= 60


def test_waiters_get_the_outcome_of_the_owner(cache: AnswerCache, redis_store: RedisStore) -> None:
    about = question(cache, unique("What is it?"))
    first, second = an_owner(), an_owner("usr_bob")
    assert find(cache, about, first).owner == first
    assert find(cache, about, second).owner == first
    assert find(cache, about, None).owner is None  # looks only
    assert 0 < int(redis_store.client.pttl(about.flight)) <= 5_000
    run = answered(run_of(asked("")), "From the leader.")
    assert finish(cache, about, second, run, SPEC) == 0  # not its flight to end
    assert finish(cache, about, first, run, SPEC) == 1
    raw: Any = redis_store.client.get(about.outcome(first.run_id))
    outcome = outcome_of(raw)
    assert outcome.answer is not None and outcome.answer["output"] == "From the leader."
    assert (outcome.stale, outcome.error) == (False, None)
    assert find(cache, about, second).cache == "hit"


def test_near_questions_are_flights_of_their_own(cache: AnswerCache) -> None:
    text = unique("What is it?")
    first, second = an_owner(), an_owner()
    assert find(cache, question(cache, text), first).owner == first
    assert find(cache, question(cache, text.lower()), second).owner == second


def test_outcome_for_waiters_by_the_end_of_the_run() -> None:

    def told(run: Run) -> Outcome:
        return outcome_of(write_outcome(run)[0])

    request = asked("")
    assert told(answered(run_of(request, cache="stale"))).stale
    cut = told(answered(run_of(request), "Cut", stop_reason="max_tokens"))
    assert cut.answer is not None and cut.answer["output"] == "Cut"
    away = told(failed(run_of(request), "model_unavailable", "Gone.")).error
    assert isinstance(away, ModelUnavailable) and away.detail == "Gone."
    assert isinstance(told(failed(run_of(request), "model_rejected")).error, ModelRejected)
    cancelled = run_of(request)
    cancelled.status = RunStatus.CANCELLED
    clamped = answered(run_of(request), max_tokens_clamped=100)
    for own in (cancelled, clamped, run_of(request), failed(run_of(request), "budget_exceeded")):
        assert told(own) == (None, False, None)


def test_returning_waiter_gets_a_later_failure(cache: AnswerCache) -> None:
    about = question(cache, unique("What is it?"))
    first, second, third = an_owner(), an_owner(), an_owner()
    find(cache, about, first)
    finish(cache, about, first, failed(run_of(asked("")), "model_unavailable"), SPEC)
    assert find(cache, about, second, first.run_id).owner == second  # none but its own
    finish(cache, about, second, failed(run_of(asked("")), "model_timeout"), SPEC)
    late = find(cache, about, third, first.run_id)
    assert late.owner is not None and late.owner.run_id == second.run_id
    assert late.outcome is not None and isinstance(late.outcome.error, ModelTimeout)
    assert find(cache, about, third).owner == third  # who has waited for nobody is not concerned


def test_cacheable_requests() -> None:
    assert all(cacheable(agent, asked("x", agent)) for agent in (ASSISTANT, SUPPORT, ANALYST))
    changes = {name: replace(tool, risk="write") for name, tool in ANALYST.tools.items()}
    assert not cacheable(replace(ANALYST, tools=changes), asked("x", ANALYST))
    assert not cacheable(replace(ANALYST, cache=CacheSpec()), asked("x", ANALYST))
    assert not cacheable(ASSISTANT, asked("x", session_id="ses_x"))
    assert not cacheable(ASSISTANT, asked("x", cache="bypass"))
    assert not cacheable(replace(ASSISTANT, approvals=("calculator",)), asked("x"))


def test_without_redis_the_cache_is_bypassed(scratch: Any) -> None:
    with closing(RedisStore(f"unix://{scratch}/nobody.sock", max_connections=2)) as nowhere:
        cache = AnswerCache(nowhere, PLAIN)
        about = question(cache, "What is it?")
        me = an_owner()
        assert find(cache, about, me) == CacheEntry("bypass", owner=me)
        assert finish(cache, about, an_owner(), answered(run_of(asked(""))), SPEC) == 0


@pytest.mark.parametrize(("longest", "kept"), [(1, False), (600, True)])
def test_no_answer_is_kept_longer_than_the_settings_say(
    redis_store: RedisStore, longest: int, kept: bool
) -> None:
    """By the life of its key: 60 seconds are the agent's, and the shorter of the two counts."""
    cache = AnswerCache(redis_store, PLAIN, longest=longest)
    about = question(cache, unique("How long?"))
    keep(cache, about)
    left: Any = redis_store.call(lambda client: client.ttl(about.answer), default=None)
    assert (left > 1) is kept and left <= 60


def test_a_cache_that_is_off_takes_nothing(redis_store: RedisStore) -> None:
    assert AnswerCache(redis_store, PLAIN).takes(ASSISTANT, asked("Hello", ASSISTANT))
    assert not AnswerCache(redis_store, PLAIN, longest=0).takes(ASSISTANT, asked("Hello", ASSISTANT))
