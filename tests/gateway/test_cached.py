"""Cache of relayed answers: for requests that ask for it, to their own user, byte for byte."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from service.cache.forget import forget_answers
from service.cache.relayed import MOST_ANSWERS, MOST_BYTES, Freshness
from service.llm.relay import RelayedRequest
from service.store import usage
from service.store.usage import UsageQuery
from service.types import now_ms
from tests.conftest import RedisServer, wait_until
from tests.gateway import house
from tests.gateway.house import HELLO, MODEL, Gateway
from tests.gateway.test_keys import key_of
from tests.gateway.upstream import COMPLETION, PARTS, chat, streamed
from tests.gateway.upstream import MODEL as GPT
from tests.llm.wire_server import (
    MESSAGE,
    Exchange,
    WireServer,
    chunk,
    close,
    end,
    sse,
    start,
    stream,
    text_events,
    whole,
)
from tests.runs.inside import ADA

FRESH = {"Cache-Control": "max-age=600"}
EVENTS = [start(), *text_events("Good ", "day."), *end()]
_HTTP = httpx2.Client(timeout=30)
_numbers = itertools.count()


def claude(exchange: Any) -> None:
    (stream(EVENTS) if exchange.json.get("stream") else whole(MESSAGE))(exchange)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer
) -> Iterator[tuple[Gateway, WireServer, WireServer]]:
    model, upstream = WireServer(claude), WireServer(chat)
    settings = {
        "anthropic_base_url": model.url,
        "openai_base_url": f"{upstream.url}/v1",
        "openai_api_key": "sk-upstream",
        "model_retries": 0,
        "breaker_failures": 1_000,
    }
    with house.gateway(tmp_path_factory.mktemp("cached"), redis_server.url, **settings) as made:
        yield made, model, upstream
    model.stop()
    upstream.stop()


@pytest.fixture
def gateway(running: tuple[Gateway, WireServer, WireServer]) -> Gateway:
    return running[0]


@pytest.fixture
def model(running: tuple[Gateway, WireServer, WireServer]) -> Iterator[WireServer]:
    running[1].requests.clear()
    yield running[1]
    running[1].otherwise = claude


@pytest.fixture
def key(gateway: Gateway) -> str:
    return key_of(gateway)


def question(**changes: Any) -> dict[str, Any]:
    """A body that no other test sends."""
    asked = [{"role": "user", "content": f"Hello number {next(_numbers)}"}]
    return {**HELLO, "messages": asked, **changes}


def hits(gateway: Gateway) -> tuple[int, int]:
    """Answers that were kept bytes so far, and the nano-dollars that they had cost."""
    gateway.services.usage.savings.write()
    total = gateway.services.infra.db.query(lambda tx: usage.total(tx, UsageQuery(0, now_ms() + 1)))
    return total["hits"], total["hit_saved_nano"]


@pytest.mark.parametrize("streams", [False, True])
def test_same_body_is_answered_once_byte_for_byte(
    gateway: Gateway, model: WireServer, key: str, streams: bool
) -> None:
    body = question(stream=streams)
    before, earlier = hits(gateway), gateway.spent
    first = gateway.post(key, body, **FRESH)
    spent = gateway.spent
    again = gateway.post(key, dict(reversed(body.items())), **FRESH)
    assert (first.headers["X-Cache"], again.headers["X-Cache"]) == ("miss", "hit")
    assert again.content == first.content and again.headers["Content-Type"] == first.headers["Content-Type"]
    assert again.headers["X-Cost-USD"] == "0.000000"
    assert len(model.requests) == 1 and gateway.spent == spent and gateway.held == 0
    assert hits(gateway) == (before[0] + 1, before[1] + spent - earlier) and spent > earlier
    other = gateway.post(key, {**body, "stream": not streams}, **FRESH)
    assert other.headers["X-Cache"] == "miss", "JSON is no stream"


def test_sdks_read_a_hit(gateway: Gateway, key: str) -> None:
    client = anthropic.Anthropic(api_key=key, base_url=gateway.url, max_retries=0)
    body = question()
    for _ in range(2):
        with client.messages.stream(**body, extra_headers=FRESH) as open_stream:
            assert open_stream.get_final_text() == "Good day."
    chats = openai.OpenAI(api_key=key, base_url=f"{gateway.url}/v1", max_retries=0, http_client=_HTTP)
    asked: Any = {"model": GPT, "max_completion_tokens": 50, "messages": question()["messages"]}
    for cached in ("miss", "hit"):
        raw = chats.chat.completions.with_raw_response.create(**asked, extra_headers=FRESH)
        assert raw.headers["X-Cache"] == cached
        assert raw.parse().choices[0].message.content == "Good day."


def test_stream_that_asked_for_usage_is_another(gateway: Gateway, key: str) -> None:
    body = {"model": GPT, "max_completion_tokens": 50, "messages": question()["messages"], "stream": True}
    path = "/v1/chat/completions"
    told = gateway.post(key, {**body, "stream_options": {"include_usage": True}}, path, **FRESH)
    other = gateway.post(key, body, path, **FRESH)
    assert (told.headers["X-Cache"], other.headers["X-Cache"]) == ("miss", "miss")
    assert '"total_tokens"' in told.text and '"total_tokens"' not in other.text


@pytest.mark.parametrize(
    ("header", "freshness"),
    [
        ("max-age=60", Freshness(60)),
        ("Max-Age=60, no-transform", Freshness(60)),
        ("no-cache, max-age=60", Freshness(0)),
        ("no-cache", None),
        ("max-age=0", None),
        ("no-store, max-age=60", None),
        ("max-age=-1", None),
        ("max-age=1e3", None),
        ("max-age=٣", None),
        ("max-age=60; x", None),
        ("", None),
    ],
)
def test_header_asks_for_the_cache(header: str, freshness: Freshness | None) -> None:
    assert Freshness.of(header) == freshness


def test_without_the_header_nothing_is_kept_or_found(gateway: Gateway, model: WireServer, key: str) -> None:
    body = question()
    for headers in ({}, FRESH, {}, {"Cache-Control": "no-cache, max-age=600"}, FRESH):
        last = gateway.post(key, body, **headers)
    assert last.headers["X-Cache"] == "hit" and len(model.requests) == 4


def test_older_answer_than_asked_for_is_a_miss(
    gateway: Gateway, model: WireServer, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = question()
    gateway.post(key, body, **FRESH)
    monkeypatch.setattr("service.cache.relayed.now_ms", lambda: now_ms() + 61_000)
    assert gateway.post(key, body, **{"Cache-Control": "max-age=60"}).headers["X-Cache"] == "miss"
    assert gateway.post(key, body, **{"Cache-Control": "max-age=60"}).headers["X-Cache"] == "hit"


def test_answer_is_its_users_own(gateway: Gateway, model: WireServer, key: str) -> None:
    body, auth = question(), gateway.services.auth
    gateway.post(key, body, **FRESH)
    other = auth.users.create("eve", "long-enough-1")
    row = auth.workspaces.new_row("elsewhere")
    gateway.services.infra.db.transact(lambda tx: auth.workspaces.insert(tx, row))
    third = auth.users.create("eve", "long-enough-1", workspace_id=row["id"])
    for user in (other, third):
        theirs = auth.keys.create(user.id, "k", ())["key"]
        assert gateway.post(theirs, body, **FRESH).headers["X-Cache"] == "miss"
    assert gateway.post(key_of(gateway), body, **FRESH).headers["X-Cache"] == "hit", "another key of the user"
    betas = {**FRESH, "anthropic-beta": "some-beta-2026-01-01"}
    assert gateway.post(key, body, **betas).headers["X-Cache"] == "miss"
    assert gateway.post(key, {**body, "max_tokens": 51}, **FRESH).headers["X-Cache"] == "miss"


def test_hit_passes_every_check(gateway: Gateway, model: WireServer, key: str) -> None:
    body = question()
    gateway.post(key, body, **FRESH)
    assert gateway.post("slp_" + "0" * 48, body, **FRESH).status_code == 401
    assert gateway.post(key_of(gateway, "agents:*"), body, **FRESH).status_code == 403
    stops, db = gateway.services.runs.stops, gateway.services.infra.db
    db.transact(lambda tx: stops.stop(tx, MODEL, "A test."))
    try:
        assert gateway.post(key, body, **FRESH).json()["error"]["code"] == "agent_stopped"
    finally:
        stops.release(MODEL)
    assert gateway.post(key, body, **FRESH).headers["X-Cache"] == "hit"


def test_key_of_the_clients_own_has_its_own_answers(gateway: Gateway, model: WireServer, key: str) -> None:
    body = question()
    gateway.post(key, body, **FRESH)
    answer = gateway.post(key, body, **FRESH, **{"Idempotency-Key": "mine-1"})
    assert answer.headers["X-Cache"] == "bypass" and len(model.requests) == 2
    answer = gateway.post(key, body, **FRESH, **{"Idempotency-Key": "auto-of-nginx-1"})
    assert answer.headers["X-Cache"] == "hit"


def test_only_whole_answers_are_kept(gateway: Gateway, model: WireServer, key: str) -> None:
    broken, refused, long = question(stream=True), question(), question()
    model.otherwise = stream(EVENTS[:3], then=close)
    gateway.post(key, broken, **FRESH)
    model.otherwise = whole({"type": "error", "error": {"type": "x", "message": "no"}}, 400)
    gateway.post(key, refused, **FRESH)
    model.otherwise = whole({**MESSAGE, "more": "x" * MOST_BYTES})
    gateway.post(key, long, **FRESH)
    model.otherwise = claude
    for body in (broken, refused, long):
        assert gateway.post(key, body, **FRESH).headers["X-Cache"] == "miss"


def test_oldest_answers_of_a_user_go_first(gateway: Gateway) -> None:
    answers, store = gateway.services.runs.relays.answers, gateway.services.infra.redis_store
    nobody, run = ADA._replace(user_id="usr_" + "9" * 26), gateway.run()
    run.status, asked = type(run.status).SUCCEEDED, []
    for number in range(MOST_ANSWERS + 3):
        body = b'{"n": %d, "of": "oldest"}' % number
        request = RelayedRequest(model=MODEL, messages=[], max_tokens=1, body=body)
        lookup = answers.look_up(nobody, request, Freshness(600))
        assert lookup is not None
        assert list(answers.recorded(lookup, run, iter([b"answer"]))) == [b"answer"]
        asked.append(lookup.key)
    found: Any = store.client.mget(asked)
    assert sum(one is not None for one in found) == MOST_ANSWERS and found[0] is None
    assert forget_answers(store.client, nobody.user_id) == MOST_ANSWERS
    assert not any(store.client.mget(asked))  # type: ignore[arg-type]


def on_and_on(exchange: Exchange) -> None:
    with suppress(OSError):
        while True:
            exchange.send(chunk(sse(EVENTS[2])))
            time.sleep(0.02)
    exchange.server.hung_up.set()


def test_client_that_leaves_keeps_nothing(gateway: Gateway, model: WireServer, key: str) -> None:
    body = question(stream=True)
    model.hung_up.clear()
    model.otherwise = stream(EVENTS[:3], then=on_and_on)
    client = anthropic.Anthropic(api_key=key, base_url=gateway.url, max_retries=0)
    left = client.messages.create(**body, extra_headers=FRESH)
    next(iter(left))
    left.close()
    assert model.hung_up.wait(15)
    wait_until(lambda: gateway.held == 0, "the settlement", 10)
    model.otherwise = claude
    assert gateway.post(key, body, **FRESH).headers["X-Cache"] == "miss"


def test_without_redis_the_model_is_asked(gateway: Gateway, model: WireServer, key: str) -> None:
    answers, caller = gateway.services.runs.relays.answers, ADA
    request = RelayedRequest(model=MODEL, messages=[], max_tokens=1, body=b"{}")
    lookup = answers.look_up(caller, request, Freshness(600))
    assert lookup is not None and lookup.call is not None
    lookup.call.answer, lookup.call.reached = None, True  # as a trip leaves it while Redis is away
    assert (lookup.answer, lookup.cache) == (None, "bypass")


def test_token_of_a_run_takes_no_part(gateway: Gateway, model: WireServer) -> None:
    token, body = gateway.token(gateway.run()), question()
    for _ in range(2):
        assert gateway.post(token, body, **FRESH).status_code == 200
    assert len(model.requests) == 2


def test_usage_of_the_upstream_in_a_stream(gateway: Gateway, key: str, running: Any) -> None:
    upstream = running[2]
    upstream.otherwise = streamed(PARTS, size=9)
    body = {"model": GPT, "max_completion_tokens": 50, "messages": question()["messages"], "stream": True}
    first = gateway.post(key, body, "/v1/chat/completions", **FRESH)
    again = gateway.post(key, body, "/v1/chat/completions", **FRESH)
    upstream.otherwise = whole(COMPLETION)
    assert again.content == first.content and again.headers["X-Cache"] == "hit"
