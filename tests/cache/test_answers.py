"""What the cache holds for whom, over a real Redis."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from service.agents.definitions import AgentDefinition
from service.agents.spec import CacheSpec
from service.cache.answers import AnswerCache, cacheable
from service.cache.entries import CacheEntry, CacheKey, Outcome, Owner, Vector, outcome_of, write_outcome
from service.cache.semantic import MOST, Semantic
from service.errors import ModelRejected, ModelTimeout, ModelUnavailable
from service.infra.redis import RedisStore
from service.infra.redis_trip import Step, Trip
from service.llm.embeddings import HttpEmbedder, unit
from service.types import Caller, Run, RunStatus, new_id
from tests.conftest import RedisServer
from tests.runs.house import ADA, ANALYST, ASSISTANT, BOB, PLAIN, SUPPORT, answered, asked, failed, run_of

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


def answer_to(cache: AnswerCache, step: Step) -> Any:
    trip = Trip(cache._redis_store)
    trip.add(step)
    trip.send()
    return step.answer


def keep(cache: AnswerCache, about: CacheKey, output: str = "An answer.", spec: CacheSpec = SPEC) -> None:
    finish(cache, about, None, answered(run_of(asked("")), output), spec)


def unique(text: str) -> str:
    """Redis is shared with other tests. No digits: they are facts."""
    return f"{text} {new_id('x').translate(LETTERS)}"


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
    changes = {name: replace(tool, side_effects=True) for name, tool in ANALYST.tools.items()}
    assert not cacheable(replace(ANALYST, tools=changes), asked("x", ANALYST))
    assert not cacheable(replace(ANALYST, cache=CacheSpec()), asked("x", ANALYST))
    assert not cacheable(ASSISTANT, asked("x", session_id="ses_x"))
    assert not cacheable(ASSISTANT, asked("x", cache="bypass"))
    assert not cacheable(replace(ASSISTANT, approvals=("calculator",)), asked("x"))


def test_without_redis_the_cache_is_bypassed(scratch: Any) -> None:
    with closing(RedisStore(f"unix://{scratch}/nobody.sock", max_connections=2)) as nowhere:
        cache = AnswerCache(nowhere, PLAIN)
        about = question(cache, "What is it?")
        assert find(cache, about, an_owner()) == CacheEntry("bypass")
        assert finish(cache, about, an_owner(), answered(run_of(asked(""))), SPEC) == 0


# --- questions that mean the same -------------------------------------------------------------------


class Meanings(BaseHTTPRequestHandler):
    """OpenAI's embeddings API for texts about refunds, about invoices, and about both."""

    server: Any

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((body, self.headers.get("Authorization")))
        text = body["input"]
        vector = [float("refund" in text or "money back" in text), float("invoice" in text), 0.05]
        told = {"data": [{"embedding": vector}]} if self.server.answer is None else self.server.answer
        answer = json.dumps(told).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None: ...


class Endpoint(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Meanings)
        self.asked: list[Any] = []
        self.status = 200
        self.answer: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1/embeddings"


@contextmanager
def serving() -> Iterator[Endpoint]:
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as server:
        yield server


@pytest.fixture
def meaning(redis_store: RedisStore, endpoint: Endpoint) -> AnswerCache:
    nearest = Semantic(redis_store, HttpEmbedder(endpoint.url, "secret", new_id("model")), 0.95)
    return AnswerCache(redis_store, PLAIN, nearest)


def make(cache: AnswerCache, text: str, output: str, caller: Caller = ADA) -> CacheEntry:
    """Ask, and answer unless it is answered already."""
    about, me = question(cache, text, caller=caller), an_owner()
    found = find(cache, about, me)
    assert found.owner == me
    run = answered(run_of(asked(""), cache=found.cache), output)
    finish(cache, about, me, run, SPEC, found.vector)
    return found


def test_a_question_that_means_the_same(meaning: AnswerCache, endpoint: Endpoint) -> None:
    assert make(meaning, "How do I get a refund?", "So.").cache == "miss"
    near = make(meaning, "How do I get my money back?", "Not kept.")
    assert near.cache == "near" and near.answer is not None and near.answer["output"] == "So."
    assert make(meaning, "Where is my invoice?", "There.").cache == "miss"
    again = find(meaning, question(meaning, "How do I get my money back?"), an_owner())
    assert again.answer == near.answer  # of the question that was answered, not a copy of a copy
    sent, authorization = endpoint.asked[0]
    assert sent["input"] == "how do i get a refund" and authorization == "Bearer secret"
    assert "usr_ada" not in json.dumps(endpoint.asked)


def test_meaning_does_not_cross_users_numbers_or_negations(meaning: AnswerCache) -> None:
    make(meaning, "How do I get a refund of 17% now?", "So.")
    for other, caller in (
        ("How do I get my money back, 17% now?", BOB),
        ("How do I get my money back, 18% now?", ADA),
        ("How do I not get my money back, 17% now?", ADA),
    ):
        assert make(meaning, other, "Another.", caller).cache == "miss"
    assert make(meaning, "How do I get 17% of my money back now?", "").cache == "near"


@pytest.mark.parametrize(
    "other",
    [
        "Do I NOT get a refund for it,",
        "Never do I get a refund for it?",
        "Bekomme ich nicht einen refund for it?",
        "Bekomme ich keinen refund for it?",
        "Je ne recois pas de refund for it?",
        "Do I get a refund for 1?",
    ],
)
def test_meaning_does_not_cross_negations_however_written(meaning: AnswerCache, other: str) -> None:
    make(meaning, unique("Do I get a refund for it,"), "Yes.")
    assert make(meaning, unique(other), "No.").cache == "miss"


def test_only_the_owner_calls_the_embedding_endpoint(meaning: AnswerCache, endpoint: Endpoint) -> None:
    about = question(meaning, unique("How do I get a refund?"))
    find(meaning, about, an_owner())
    for _ in range(5):
        find(meaning, about, an_owner())
        find(meaning, about, None)
    find(meaning, question(meaning, "print(`refund`)"), an_owner())
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize(
    ("status", "answer"),
    [(500, {}), (200, {}), (200, {"data": []}), (200, {"data": [{"embedding": []}]}), (200, [1]),
     (200, {"data": [{"embedding": ["x"]}]}), (200, {"data": [{"embedding": [0, 0]}]})],
)  # fmt: skip
def test_an_endpoint_that_fails_is_a_miss_and_is_left_alone(
    meaning: AnswerCache, endpoint: Endpoint, status: int, answer: Any
) -> None:
    endpoint.status, endpoint.answer = status, answer
    for _ in range(3):
        assert make(meaning, unique("How do I get a refund?"), "So.").cache == "miss"
    assert len(endpoint.asked) == 1


def test_a_scope_holds_so_many_vectors_and_no_more(redis_store: RedisStore) -> None:
    class Spread:
        name = new_id("model")

        def embed(self, text: str) -> Any:
            return unit([float(text.split()[-1].count("x")), 1.0])

    cache = AnswerCache(
        redis_store, PLAIN, Semantic(redis_store, Spread(), threshold=2.0)
    )  # nothing is so near
    for number in range(MOST + 20):
        make(cache, f"How about {'x' * number}a", "So.")
    keys = list(redis_store.client.scan_iter(f"slipway:vectors:{question(cache, 'x').scope}:*"))
    assert max(int(redis_store.client.hlen(key)) for key in keys) == MOST


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
