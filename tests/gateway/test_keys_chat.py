"""Models that are asked by OpenAI's SDK with a key: as agents without a prompt or tools of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.conftest import RedisServer
from tests.gateway import house
from tests.gateway.house import MODEL, Gateway
from tests.gateway.test_keys import key_of, newest
from tests.messages_api.asked import call, calls, says

ASKED: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]
TOOL: Any = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Gateway]:
    with house.gateway(tmp_path_factory.mktemp("chat"), redis_server.url) as made:
        yield made


@pytest.fixture(scope="module")
def sdk(keys: Gateway) -> openai.OpenAI:
    return openai.OpenAI(api_key=key_of(keys), base_url=f"{keys.url}/v1", max_retries=0)


def test_answer_is_the_models(keys: Gateway, sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model=MODEL, messages=ASKED)
    assert (answer.choices[0].message.content, answer.model) == ("Answer 5.", MODEL)
    sent = keys.api.requests[-1].body
    assert (sent["model"], sent["system"], sent["max_tokens"]) == (MODEL, "Be brief.", 4096)
    assert sent["messages"] == [{"role": "user", "content": "Hello"}]
    run = newest(keys)
    assert (run["agent"], run["door"], run["status"]) == (MODEL, "chat/invoke", "succeeded")


def test_stream_brings_the_same(keys: Gateway, sdk: openai.OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        sdk.chat.completions.create(model=MODEL, messages=ASKED, stream=True, stream_options=options)
    )
    assert "".join(one.choices[0].delta.content or "" for one in chunks if one.choices) == "Answer 5."
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens > 0
    assert keys.held == 0


def test_tools_make_a_round_trip_and_links_stay(keys: Gateway, sdk: openai.OpenAI, monkeypatch: Any) -> None:
    monkeypatch.setattr(keys.api, "script", lambda asked: calls(call("look_up", {"of": 1})))
    first = sdk.chat.completions.create(model=MODEL, messages=ASKED, tools=[TOOL]).choices[0]
    assert first.finish_reason == "tool_calls" and first.message.tool_calls
    text = "See https://example.org/a."
    monkeypatch.setattr(keys.api, "script", lambda asked: says(f"{asked.results[0]}: {text}"))
    result = {"role": "tool", "tool_call_id": first.message.tool_calls[0].id, "content": "Found"}
    turns = [*ASKED, first.message, result]
    again = sdk.chat.completions.create(model=MODEL, messages=turns, tools=[TOOL])
    assert again.choices[0].message.content == f"Found: {text}"


def test_unknown_model_is_404_and_a_key_without_the_scope_403(keys: Gateway, sdk: openai.OpenAI) -> None:
    with pytest.raises(
        openai.NotFoundError, match=f"no agent or model named {MODEL}0; did you mean '{MODEL}'"
    ):
        sdk.chat.completions.create(model=f"{MODEL}0", messages=ASKED)
    with pytest.raises(openai.PermissionDeniedError):
        restricted = sdk.with_options(api_key=key_of(keys, "agents:probe"))
        restricted.chat.completions.create(model=MODEL, messages=ASKED)
