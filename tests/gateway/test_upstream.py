"""Models of an upstream in OpenAI's dialect, asked by the official SDK with a key or with the token of a run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx2
import openai
import pytest

from service.store.schema import ledger
from tests.conftest import RedisServer, wait_until
from tests.gateway import house
from tests.gateway.house import Gateway
from tests.gateway.test_keys import key_of, newest
from tests.gateway.upstream import COMPLETION, COST, MODEL, PARTS, chat, refusal, streamed
from tests.llm.wire_server import Exchange, WireServer, chunk, close, whole

ASKED: list[Any] = [{"role": "user", "content": "Hello"}]
BODY = {"model": MODEL, "max_completion_tokens": 50, "messages": ASKED}
PATH = "/v1/chat/completions"
KEY = "sk-upstream"
NO_TEXT = [{"index": 0, "message": {"role": "assistant", "content": ["a", 5]}, "finish_reason": "stop"}]
_HTTP = httpx2.Client(timeout=30)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer
) -> Iterator[tuple[Gateway, WireServer]]:
    server = WireServer(chat)
    settings = {
        "openai_base_url": f"{server.url}/v1",
        "openai_api_key": KEY,
        "model_retries": 0,
        "breaker_failures": 1_000,
    }
    with house.gateway(tmp_path_factory.mktemp("upstream"), redis_server.url, **settings) as made:
        yield made, server
    _HTTP.close()
    server.stop()


@pytest.fixture
def gateway(running: tuple[Gateway, WireServer]) -> Gateway:
    return running[0]


@pytest.fixture
def server(running: tuple[Gateway, WireServer]) -> Iterator[WireServer]:
    running[1].requests.clear()
    yield running[1]
    running[1].otherwise = chat


def sdk(gateway: Gateway, token: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=token, base_url=f"{gateway.url}/v1", max_retries=0, http_client=_HTTP)


@pytest.fixture(params=["key", "token of a run"])
def token(gateway: Gateway, request: pytest.FixtureRequest) -> str:
    return key_of(gateway) if request.param == "key" else gateway.token(gateway.run())


def test_answer_is_the_upstreams_and_is_paid(gateway: Gateway, server: WireServer, token: str) -> None:
    before = gateway.spent
    answer = sdk(gateway, token).chat.completions.create(
        model=MODEL, max_completion_tokens=50, messages=ASKED, temperature=0.5
    )
    assert answer.choices[0].message.content == "Good day." and answer.usage is not None
    assert answer.model_extra == {"a_field_of_tomorrow": 1.5}
    assert gateway.spent == before + COST and gateway.held == 0
    exchange = server.requests[0]
    assert exchange.json == {**BODY, "temperature": 0.5}
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.head.startswith(b"POST /v1/chat/completions ")


@pytest.mark.parametrize("asks", [False, True])
@pytest.mark.parametrize("size", [9, 1_000_000])
def test_stream_has_usage_only_where_it_was_asked_for(
    gateway: Gateway, server: WireServer, token: str, asks: bool, size: int
) -> None:
    server.otherwise = streamed(PARTS, size=size)
    before = gateway.spent
    options: Any = {"stream_options": {"include_usage": True}} if asks else {}
    with sdk(gateway, token).chat.completions.create(**BODY, stream=True, **options) as stream:  # type: ignore[call-overload]
        chunks = list(stream)
    text = "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)
    assert text == "Good day." and chunks[2].choices[0].finish_reason == "stop"
    assert [one.usage is not None for one in chunks] == [False] * 3 + [True] * asks
    assert server.requests[0].json["stream_options"] == {"include_usage": True}
    wait_until(lambda: gateway.held == 0, "the settlement", 5)
    assert gateway.spent == before + COST


def test_call_with_a_key_is_a_run_of_its_own(gateway: Gateway, server: WireServer) -> None:
    key = key_of(gateway)
    sdk(gateway, key).chat.completions.create(**BODY, user="lin")
    run = newest(gateway)
    assert (run["agent"], run["door"], run["status"]) == (MODEL, "chat/invoke", "succeeded")
    whole = httpx2.get(f"{gateway.url}/v1/runs/{run['run_id']}", headers={"x-api-key": key}).json()
    assert (whole["output"], whole["model"], whole["input"]) == ("Good day.", MODEL, "Hello")
    paid = [row for row in gateway.rows(ledger) if row["run_id"] == run["run_id"] and row["agent"] == MODEL]
    assert paid and server.requests[0].json["user"] == "lin"


def test_call_with_a_token_is_a_step_of_its_run(gateway: Gateway, server: WireServer) -> None:
    run = gateway.run()
    steps = gateway.steps(run)
    token = steps.begin(60, 20)
    sdk(gateway, token).chat.completions.create(**BODY)
    told = list(steps.tell())
    used = [event.data for event in told if event.name == "usage"]
    assert [(one["model"], one["input_tokens"]) for one in used] == [(MODEL, 20)]
    costs = [abs(row["amount_nano"]) for row in gateway.rows(ledger) if row["run_id"] == run.id]
    assert COST in costs


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 2}, "n"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"audio": {"voice": "ash", "format": "wav"}}, "audio"),
        ({"modalities": ["text", "audio"]}, "modalities[1]"),
        ({"models": ["gpt-5.5"]}, "models"),
        ({"plugins": [{"id": "web"}]}, "plugins"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [7]}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "messages[0].content"),
        ({"stream_options": "yes"}, "stream_options"),
    ],
)
def test_what_a_hold_does_not_cover_is_refused_by_name(
    gateway: Gateway, server: WireServer, change: dict[str, Any], param: str
) -> None:
    for token in (key_of(gateway), gateway.token(gateway.run())):
        answer = gateway.post(token, {**BODY, **change}, PATH)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not server.requests and gateway.held == 0


@pytest.mark.parametrize(
    ("change", "least", "most"),
    [
        ({}, 50 * 4_500, 60 * 4_500 + 1_500 * 750),
        ({"max_completion_tokens": None}, 128_000 * 4_500, 128_000 * 4_500 + 1_500 * 750),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            400_000 * 750,
            421_000 * 750 + 60 * 4_500,
        ),
    ],
)
def test_the_most_is_held_and_without_usage_settled(
    gateway: Gateway, server: WireServer, change: dict[str, Any], least: int, most: int
) -> None:
    server.otherwise = whole({**COMPLETION, "usage": None})
    before = gateway.spent
    assert gateway.post(key_of(gateway), {**BODY, **change}, PATH).status_code == 200
    assert least <= gateway.spent - before <= most and gateway.held == 0


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 4},
        {"prompt_tokens": 10, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 11}},
        {"prompt_tokens": 10, "completion_tokens": 10_000},
        {"prompt_tokens": "10", "completion_tokens": 4},
    ],
)
def test_usage_that_cannot_be_is_the_worst(
    gateway: Gateway, server: WireServer, usage: dict[str, Any]
) -> None:
    server.otherwise = whole({**COMPLETION, "usage": usage})
    before = gateway.spent
    assert gateway.post(key_of(gateway), BODY, PATH).status_code == 200
    assert gateway.spent - before > 50 * 4_500


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (refusal(400), openai.BadRequestError),
        (refusal(400, "context_length_exceeded"), openai.BadRequestError),
        (refusal(401), openai.InternalServerError),
        (refusal(429, "rate_limit_exceeded", "retry-after: 3\r\n"), openai.APIStatusError),
        (refusal(500), openai.InternalServerError),
        (whole(b"<html>"), openai.InternalServerError),
        (whole(b'{"error": {"code": ["context_length_exceeded"]}}', 500), openai.InternalServerError),
        (whole({**COMPLETION, "error": {"message": "UPSTREAM WORDS"}}), openai.InternalServerError),
        (whole({**COMPLETION, "choices": NO_TEXT}), openai.InternalServerError),
        (close, openai.InternalServerError),
    ],
)
def test_failures_of_the_upstream_are_ours(
    gateway: Gateway, server: WireServer, token: str, handler: Any, error: type[openai.APIStatusError]
) -> None:
    server.otherwise = handler
    with pytest.raises(error) as raised:
        sdk(gateway, token).chat.completions.create(**BODY)
    assert "UPSTREAM" not in raised.value.response.text and KEY not in raised.value.response.text
    assert gateway.held == 0


def test_refused_call_costs_nothing(gateway: Gateway, server: WireServer, token: str) -> None:
    server.otherwise = refusal(400)
    before = gateway.spent
    with pytest.raises(openai.BadRequestError):
        sdk(gateway, token).chat.completions.create(**BODY)
    assert gateway.spent == before


def test_broken_stream_ends_with_an_error_and_is_paid_in_full(
    gateway: Gateway, server: WireServer, token: str
) -> None:
    server.otherwise = streamed(PARTS[:2], then=close)
    before, got = gateway.spent, ""
    with (
        pytest.raises(openai.APIError) as raised,
        sdk(gateway, token).chat.completions.create(**BODY, stream=True) as stream,
    ):  # type: ignore[call-overload]
        for one in stream:
            got += one.choices[0].delta.content
    assert raised.type is openai.APIError, "an event, and not the end of the connection"
    assert got == "Good "[: len(got)] or got == "Good day."
    wait_until(lambda: gateway.held == 0, "the settlement", 5)
    assert gateway.spent - before > 50 * 4_500


def on_and_on(exchange: Exchange) -> None:
    with suppress(OSError):
        while True:
            exchange.send(chunk(b"data: %b\n\n" % json.dumps(PARTS[1]).encode()))
            time.sleep(0.02)
    exchange.server.hung_up.set()


def test_client_that_leaves_stops_the_upstream(gateway: Gateway, server: WireServer, token: str) -> None:
    server.hung_up.clear()
    server.otherwise = streamed(PARTS[:1], then=on_and_on)
    stream = sdk(gateway, token).chat.completions.create(**BODY, stream=True)  # type: ignore[call-overload]
    assert next(iter(stream)).choices[0].delta.content == "Good "
    stream.close()
    assert server.hung_up.wait(15)
    wait_until(lambda: gateway.held == 0, "the settlement", 10)


def test_other_doors_send_no_upstream_model_to_claude(gateway: Gateway, server: WireServer) -> None:
    asked = len(gateway.api.requests)
    for token in (key_of(gateway), gateway.token(gateway.run())):
        answer = gateway.post(token, {"model": MODEL, "max_tokens": 5, "messages": ASKED})
        assert answer.status_code == 404 and PATH in answer.json()["error"]["message"]
        assert gateway.post(token, {**BODY, "model": "gpt-unknown"}, PATH).status_code == 404
    assert (
        gateway.post(gateway.token(gateway.run()), {**BODY, "model": "claude-haiku-5-5"}, PATH).status_code
        == 404
    )
    assert gateway.post(gateway.token(gateway.run()), {**BODY, "model": "probe"}, PATH).status_code == 404
    assert len(gateway.api.requests) == asked and not server.requests


def test_key_needs_the_scope_of_the_model(gateway: Gateway, server: WireServer) -> None:
    refused = gateway.post(key_of(gateway, "agents:*"), BODY, PATH)
    assert refused.status_code == 403 and not server.requests
    assert gateway.post(key_of(gateway, f"models:{MODEL}"), BODY, PATH).status_code == 200
    listed = httpx2.get(f"{gateway.url}/v1/models", headers={"x-api-key": key_of(gateway)}).json()["data"]
    assert {"id": MODEL, "object": "model", "created": 0, "owned_by": "openai"} in listed
