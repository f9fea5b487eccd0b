"""Models of an upstream in the Responses API, asked by the official SDK with a key or with the token of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import openai
import pytest

from tests.conftest import RedisServer, wait_until
from tests.gateway import house
from tests.gateway.house import Gateway
from tests.gateway.responses_upstream import (
    ARGUMENTS,
    RESPONSE,
    answers,
    call,
    events,
    message,
    response,
    streamed,
)
from tests.gateway.responses_upstream import sse as encoded
from tests.gateway.test_keys import key_of, newest
from tests.gateway.upstream import COST, MODEL, refusal
from tests.llm.wire_server import WireServer, close, whole

BODY: dict[str, Any] = {"model": MODEL, "max_output_tokens": 50, "input": "Hello"}
PATH = "/v1/responses"
KEY = "sk-upstream"
IMAGE = {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AA=="}]}
_HTTP = httpx2.Client(timeout=30)


@pytest.fixture(scope="module")
def running(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer
) -> Iterator[tuple[Gateway, WireServer]]:
    server = WireServer(answers)
    settings = {
        "openai_base_url": f"{server.url}/v1",
        "openai_api_key": KEY,
        "model_retries": 0,
        "breaker_failures": 1_000,
    }
    with house.gateway(tmp_path_factory.mktemp("responses"), redis_server.url, **settings) as made:
        yield made, server
    server.stop()


@pytest.fixture
def gateway(running: tuple[Gateway, WireServer]) -> Gateway:
    return running[0]


@pytest.fixture
def server(running: tuple[Gateway, WireServer]) -> Iterator[WireServer]:
    running[1].requests.clear()
    yield running[1]
    running[1].otherwise = answers


@pytest.fixture(params=["key", "token of a run"])
def token(gateway: Gateway, request: pytest.FixtureRequest) -> str:
    return key_of(gateway) if request.param == "key" else gateway.token(gateway.run())


def sdk(gateway: Gateway, token: str) -> openai.OpenAI:
    return openai.OpenAI(api_key=token, base_url=f"{gateway.url}/v1", max_retries=0, http_client=_HTTP)


def test_answer_is_the_upstreams_and_is_paid(gateway: Gateway, server: WireServer, token: str) -> None:
    before = gateway.spent
    answer = sdk(gateway, token).responses.create(**BODY, temperature=0.5)
    assert answer.output_text == "Good day." and answer.usage is not None
    assert answer.model_extra == {"a_field_of_tomorrow": 1.5}
    assert gateway.spent == before + COST and gateway.held == 0
    exchange = server.requests[0]
    assert exchange.json == {**BODY, "temperature": 0.5, "store": False}
    assert exchange.headers["authorization"] == f"Bearer {KEY}"
    assert exchange.head.startswith(b"POST /v1/responses ")


@pytest.mark.parametrize("size", [9, 1_000_000])
def test_stream_is_the_upstreams_byte_for_byte(
    gateway: Gateway, server: WireServer, token: str, size: int
) -> None:
    told = events(["Good ", "day."], [ARGUMENTS[:5], ARGUMENTS[5:]])
    server.otherwise = streamed(told, size=size)
    before = gateway.spent
    assert gateway.post(token, {**BODY, "stream": True}, PATH).content == encoded(told)
    wait_until(lambda: gateway.held == 0, "the settlement", 5)
    assert gateway.spent == before + COST
    with sdk(gateway, token).responses.stream(**BODY) as stream:
        final = stream.get_final_response()
    assert final.output_text == "Good day." and final.output[1].type == "function_call"


def test_call_with_a_key_is_a_run_of_its_own(gateway: Gateway, server: WireServer) -> None:
    key = key_of(gateway)
    server.otherwise = whole(response([message("Good day."), call(ARGUMENTS)]))
    made = sdk(gateway, key).responses.create(**BODY, safety_identifier="lin")
    run = newest(gateway)
    assert (run["agent"], run["door"], run["status"]) == (MODEL, "responses/invoke", "succeeded")
    headers = {"x-api-key": key}
    kept = httpx2.get(f"{gateway.url}/v1/runs/{run['run_id']}", headers=headers).json()
    assert (kept["output"], kept["input"], kept["stop_reason"]) == ("Good day.", "Hello", "tool_use")
    found = httpx2.get(f"{gateway.url}/v1/responses/{made.id}", headers=headers)
    assert found.status_code == 404, "nothing is kept"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"background": True}, "background"),
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0]"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
    ],
)
def test_what_a_hold_does_not_cover_is_refused_by_name(
    gateway: Gateway, server: WireServer, change: dict[str, Any], param: str
) -> None:
    for token in (key_of(gateway), gateway.token(gateway.run())):
        answer = gateway.post(token, {**BODY, **change}, PATH)
        told = answer.json()["error"]["param"]
        assert answer.status_code == 400 and told.startswith(param), answer.text
    assert not server.requests and gateway.held == 0


@pytest.mark.parametrize(
    ("change", "least", "most"),
    [
        ({}, 50 * 4_500, 60 * 4_500 + 1_500 * 750),
        ({"max_output_tokens": None}, 128_000 * 4_500, 128_000 * 4_500 + 1_500 * 750),
        ({"input": [IMAGE]}, 400_000 * 750, 421_000 * 750 + 60 * 4_500),
        (
            {"input": [{"type": "reasoning", "summary": [], "encrypted_content": "x"}]},
            400_000 * 750,
            421_000 * 750 + 60 * 4_500,
        ),
    ],
)
def test_the_most_is_held_and_without_usage_settled(
    gateway: Gateway, server: WireServer, change: dict[str, Any], least: int, most: int
) -> None:
    server.otherwise = whole({**RESPONSE, "usage": None})
    before = gateway.spent
    assert gateway.post(key_of(gateway), {**BODY, **change}, PATH).status_code == 200
    assert least <= gateway.spent - before <= most and gateway.held == 0


@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": -1, "output_tokens": 4},
        {"input_tokens": 10, "output_tokens": 4, "input_tokens_details": {"cached_tokens": 11}},
        {"input_tokens": 10, "output_tokens": 10_000},
        {"input_tokens": "10", "output_tokens": 4},
        {"input_tokens": 900_000, "output_tokens": 4},
    ],
)
def test_usage_that_cannot_be_is_the_hold(
    gateway: Gateway, server: WireServer, usage: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    server.otherwise = whole({**RESPONSE, "usage": usage})
    for asked in (BODY, {**BODY, "input": [IMAGE]}):
        before = gateway.spent
        assert gateway.post(key_of(gateway), asked, PATH).status_code == 200
        assert gateway.spent - before <= 421_000 * 750 + 60 * 4_500 and gateway.held == 0
    assert "hold_overrun" not in caplog.messages


def test_answer_that_is_cut_off_is_paid_for_what_it_used(
    gateway: Gateway, server: WireServer, token: str
) -> None:
    cut = response([message("Good")], "incomplete", incomplete_details={"reason": "max_output_tokens"})
    told = [*events(["Good"])[:-1], {"type": "response.incomplete", "response": cut}]
    for handler, streams in ((whole(cut), False), (streamed(told), True)):
        server.otherwise, before = handler, gateway.spent
        answer = gateway.post(token, {**BODY, "stream": streams}, PATH)
        assert answer.status_code == 200 and "max_output_tokens" in answer.text
        wait_until(lambda: gateway.held == 0, "the settlement", 5)
        assert gateway.spent == before + COST


def test_answer_that_failed_is_paid_for_what_it_used_and_an_error_of_ours(
    gateway: Gateway, server: WireServer, token: str
) -> None:
    failed = response([], "failed", error={"code": "server_error", "message": "UPSTREAM WORDS"})
    told = [*events(["Good"])[:4], {"type": "response.failed", "response": failed}]
    for handler, streams in ((whole(failed), False), (streamed(told), True)):
        server.otherwise, before = handler, gateway.spent
        answer = gateway.post(token, {**BODY, "stream": streams}, PATH)
        assert "UPSTREAM" not in answer.text and "model_error" in answer.text
        wait_until(lambda: gateway.held == 0, "the settlement", 5)
        assert COST <= gateway.spent - before <= COST + 32 * 4_500, "an estimate from what was reported"


@pytest.mark.parametrize(
    ("handler", "error"),
    [
        (refusal(400), openai.BadRequestError),
        (refusal(400, "context_length_exceeded"), openai.BadRequestError),
        (refusal(401), openai.InternalServerError),
        (refusal(500), openai.InternalServerError),
        (whole(b"<html>"), openai.InternalServerError),
        (whole({**RESPONSE, "output": 7}), openai.InternalServerError),
        (whole({**RESPONSE, "status": 7}), openai.InternalServerError),
        (close, openai.InternalServerError),
    ],
)
def test_failures_of_the_upstream_are_ours(
    gateway: Gateway, server: WireServer, token: str, handler: Any, error: type[openai.APIStatusError]
) -> None:
    server.otherwise = handler
    with pytest.raises(error) as raised:
        sdk(gateway, token).responses.create(**BODY)
    assert "UPSTREAM" not in raised.value.response.text and KEY not in raised.value.response.text
    assert gateway.held == 0


def test_broken_stream_ends_with_an_error_and_is_paid_in_full(
    gateway: Gateway, server: WireServer, token: str
) -> None:
    server.otherwise = streamed(events(["Good ", "day."])[:5], then=close)
    before = gateway.spent
    with pytest.raises(openai.APIError), sdk(gateway, token).responses.create(**BODY, stream=True) as stream:
        for _ in stream:
            pass
    wait_until(lambda: gateway.held == 0, "the settlement", 5)
    assert gateway.spent - before > 50 * 4_500


def test_names_decide_who_answers(gateway: Gateway, server: WireServer) -> None:
    key, token = key_of(gateway), gateway.token(gateway.run())
    assert gateway.post(key, {**BODY, "model": "claude-haiku-5-5"}, PATH).json()["object"] == "response"
    for name in ("claude-haiku-5-5", "probe", "gpt-unknown"):
        assert gateway.post(token, {**BODY, "model": name}, PATH).status_code == 404
    assert gateway.post(key_of(gateway, "agents:*"), BODY, PATH).status_code == 403
    assert not server.requests
    assert json.loads(gateway.post(key, BODY, PATH).content) == RESPONSE
