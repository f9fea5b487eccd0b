"""Questions of the same meaning: embeddings from an endpoint, vectors in Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.cache.answers import AnswerCache
from service.cache.entries import CacheEntry
from service.cache.semantic import MAX_VECTORS, Semantic
from service.errors import DatabaseUnavailable
from service.ids import new_id
from service.infra.redis import RedisStore
from service.llm.embeddings import unit
from service.store.schema import ledger
from service.types import Caller, Run
from tests.cache.questions import SPEC, an_owner, cache, find, finish, question, redis_store, unique
from tests.embedding_endpoint import Endpoint, paid, serving
from tests.runs.house import ADA, BOB, PLAIN, answered, asked, run_of
from tests.usage.house import House

__all__ = ["cache", "redis_store"]


def meanings(text: str) -> list[float]:
    """Return the vector of a text about refunds, about invoices, or about both."""
    return [float("refund" in text or "money back" in text), float("invoice" in text), 0.05]


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving(meanings) as server:
        yield server


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(f"sqlite:///{tmp_path}/money.db", patience=0)
    yield made
    made.db.close()


@pytest.fixture
def meaning(redis_store: RedisStore, endpoint: Endpoint, house: House) -> AnswerCache:
    embeddings = paid(endpoint.url, house.db, house.spending, new_id("model"))
    return AnswerCache(redis_store, PLAIN, Semantic(redis_store, embeddings, 0.95))


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

        def of(self, asker: Run) -> Spread:
            return self

        def embed(self, text: str) -> Any:
            return unit([float(text.split()[-1].count("x")), 1.0])

    cache = AnswerCache(
        redis_store,
        PLAIN,
        Semantic(redis_store, Spread(), threshold=2.0),  # type: ignore[arg-type]
    )  # nothing is so near
    for number in range(MAX_VECTORS + 20):
        make(cache, f"How about {'x' * number}a", "So.")
    keys = list(redis_store.client.scan_iter(f"slipway:vectors:{question(cache, 'x').scope}:*"))
    assert max(int(redis_store.client.hlen(key)) for key in keys) == MAX_VECTORS


def test_who_asks_pays_for_the_look_up(meaning: AnswerCache, house: House) -> None:
    make(meaning, unique("How do I get a refund?"), "So.")
    assert make(meaning, unique("How do I get my money back?"), "Not kept.").cache == "near"
    calls = house.db.query(lambda tx: tx.rows(sa.select(ledger).where(ledger.c.account == "upstream")))
    assert [(call["user_id"], call["agent"], call["run_id"]) for call in calls] == [
        ("usr_ada", "assistant", "")
    ] * 2
    assert [call["input_tokens"] for call in calls] == [7, 8]


def test_without_money_a_question_is_a_miss_and_is_not_sent(
    meaning: AnswerCache, endpoint: Endpoint, house: House
) -> None:
    make(meaning, unique("How do I get a refund?"), "So.")
    house.budgets.put("user:usr_ada", "day", 0)
    assert make(meaning, unique("How do I get my money back?"), "So.").cache == "miss"
    assert len(endpoint.asked) == 1


def test_without_the_database_a_question_is_a_miss(
    meaning: AnswerCache, endpoint: Endpoint, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailable

    monkeypatch.setattr(house.db, "transact", away)
    assert make(meaning, unique("How do I get a refund?"), "So.").cache == "miss"
    assert not endpoint.asked
