"""Questions of the same meaning: embeddings from an endpoint, vectors in Redis."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from service.cache.answers import AnswerCache
from service.cache.entries import CacheEntry
from service.cache.semantic import MAX_VECTORS, Semantic
from service.ids import new_id
from service.infra.redis import RedisStore
from service.llm.embeddings import HttpEmbedder, unit
from service.types import Caller
from tests.cache.questions import SPEC, an_owner, cache, find, finish, question, redis_store, unique
from tests.runs.house import ADA, BOB, PLAIN, answered, asked, run_of

__all__ = ["cache", "redis_store"]


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
    for number in range(MAX_VECTORS + 20):
        make(cache, f"How about {'x' * number}a", "So.")
    keys = list(redis_store.client.scan_iter(f"slipway:vectors:{question(cache, 'x').scope}:*"))
    assert max(int(redis_store.client.hlen(key)) for key in keys) == MAX_VECTORS
