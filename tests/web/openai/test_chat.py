"""Chat Completions before the official SDK: same answers, same money as `invoke`, errors by their classes."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel

from tests.conftest import ROOT, Model, Slipway
from tests.web.openai.conftest import sdk_of

BUNDLED = sorted(folder.parent.name for folder in (ROOT / "agents").glob("*/agent.yaml"))
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def question_of(client: httpx2.Client, agent: str) -> str:
    return str((client.get(f"/v1/agents/{agent}").json()["examples"] or ["What is 17 * 23?"])[0])


def run_of(client: httpx2.Client, completion_id: str) -> dict[str, Any]:
    run: dict[str, Any] = client.get(f"/v1/runs/run_{completion_id.removeprefix('chatcmpl-')}").json()
    return run


def collected(stream: openai.Stream[Any]) -> tuple[str, str, list[Any]]:
    """(text, finish reason, chunks) of a stream."""
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert [reason is None for reason in reasons] == [True] * (len(reasons) - 1) + [False]
    return text, reasons[-1], chunks


@pytest.mark.parametrize("agent", BUNDLED)
def test_answer_is_that_of_invoke_by_json_and_by_stream(
    sdk: openai.OpenAI, client: httpx2.Client, agent: str
) -> None:
    question = question_of(client, agent)
    told = client.post(f"/v1/agents/{agent}/invoke", json={"input": question, "cache": "bypass"}).json()
    messages: Any = [{"role": "user", "content": question}]
    whole = sdk.chat.completions.create(model=agent, messages=messages)
    text, reason, _ = collected(sdk.chat.completions.create(model=agent, messages=messages, stream=True))
    assert whole.choices[0].message.content == told["output"] and text.endswith(told["output"])
    assert whole.choices[0].finish_reason == reason == "stop"
    run = run_of(client, whole.id)
    assert (run["status"], run["door"], run["output"]) == ("succeeded", "chat/invoke", told["output"])
    assert run["usage"] == told["usage"]


def test_usage_is_that_of_the_run(sdk: openai.OpenAI, client: httpx2.Client) -> None:
    messages: Any = [{"role": "user", "content": "What does the usage say here?"}]
    whole = sdk.chat.completions.create(model="assistant", messages=messages)
    used = run_of(client, whole.id)["usage"]
    assert whole.usage is not None
    assert whole.usage.completion_tokens == used["output_tokens"]
    asked = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert whole.usage.prompt_tokens == sum(used[name] for name in asked)
    options: Any = {"include_usage": True}
    messages = [{"role": "user", "content": "And what does it say in a stream?"}]
    first, *_, last = sdk.chat.completions.create(
        model="assistant", messages=messages, stream=True, stream_options=options
    )
    assert (
        last.choices == []
        and last.usage.completion_tokens == run_of(client, first.id)["usage"]["output_tokens"]
    )


def test_instructions_and_earlier_turns_reach_the_model(sdk: openai.OpenAI) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": [{"type": "text", "text": "What is my name?"}]},
    ]
    answer = sdk.chat.completions.create(model="assistant", messages=messages)
    assert "Ada" in (answer.choices[0].message.content or "")


@pytest.mark.parametrize("agent", ["assistant", "analyst"])
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_functions_of_the_client_in_a_round_trip(
    sdk: openai.OpenAI, client: httpx2.Client, agent: str, stream: bool
) -> None:
    question = 'Call get_weather for "Paris".' + (" What is 17% of 2340?" if agent == "analyst" else "")
    messages: Any = [{"role": "user", "content": question}]
    tools: Any = [WEATHER]
    answer = asked(sdk, agent, messages, tools, stream)
    [call] = answer.choices[0].message.tool_calls
    assert answer.choices[0].finish_reason == "tool_calls"
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    messages.append(answer.choices[0].message)  # as it came: the SDK sends all fields that it was given
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "21 degrees in Paris"})
    answer = asked(sdk, agent, messages, tools, stream)
    text = answer.choices[0].message.content
    assert "21 degrees" in text and answer.choices[0].finish_reason == "stop"
    if agent == "analyst":
        assert "397.8" in text
        assert "calculator" in [tool["name"] for tool in run_of(client, answer.id)["tools"]]


def asked(sdk: openai.OpenAI, agent: str, messages: Any, tools: Any, stream: bool) -> Any:
    if not stream:
        return sdk.chat.completions.create(model=agent, messages=messages, tools=tools)
    with sdk.chat.completions.stream(model=agent, messages=messages, tools=tools) as events:
        return events.get_final_completion()


class Person(BaseModel):
    name: str
    city: str


def test_structured_answer(sdk: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Ada lives in London."}]
    parsed = sdk.chat.completions.parse(model="assistant", messages=messages, response_format=Person)
    assert isinstance(parsed.choices[0].message.parsed, Person)
    answer = sdk.chat.completions.create(
        model="assistant", messages=messages, response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


ARGUMENTS = "messages[1].tool_calls[0].function.arguments"


def called(arguments: str = "{}", **changes: str) -> list[dict[str, Any]]:
    """A turn of the assistant that calls, and the result."""
    function = {"name": changes.get("name", "get_weather"), "arguments": arguments}
    call = {"id": "call_1", "type": "function", "function": function}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "Sun."}
    return [{"role": "assistant", "content": None, "tool_calls": [call]}, result]


BAD: list[tuple[dict[str, Any], str | None]] = [
    ({"n": 2}, "n"),
    ({"logprobs": True}, "logprobs"),
    ({"logit_bias": {"50256": -100}}, "logit_bias"),
    ({"stop": " "}, "stop"),
    ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    ({"audio": {"voice": "alloy", "format": "mp3"}}, "audio"),
    ({"no_such_field": 1}, "no_such_field"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"temperature": 3}, "temperature"),
    ({"max_completion_tokens": 0}, "max_completion_tokens"),
    ({"user": "x" * 65}, "user"),
    ({"tool_choice": "auto"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": "required"}, "tool_choice"),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": " "}]}, "messages[0].content"),
    ({"messages": [{"role": "robot", "content": "Hi"}]}, "messages[0].role"),
    ({"messages": [{"role": "assistant", "content": "Hi"}, *HELLO]}, "messages[0].role"),
    ({"messages": [*HELLO, {"role": "assistant", "content": "Hi"}]}, "messages[1].role"),
    (
        {"messages": [*HELLO, {"role": "tool", "tool_call_id": "x", "content": "y"}]},
        "messages[1].tool_call_id",
    ),
    ({"messages": [*HELLO, *called('{"a":' * 300 + "1" + "}" * 300)]}, ARGUMENTS),  # orjson writes 254
    ({"messages": [*HELLO, *called('{"a": "\\u0000"}')]}, ARGUMENTS),
    ({"messages": [*HELLO, *called('{"a": [' + "1," * 20_000 + "1]}")]}, ARGUMENTS),
    ({"messages": [*HELLO, *called("[]")]}, ARGUMENTS),
    (
        {"messages": [*HELLO, *called(name="a b")]},
        "messages[1].tool_calls[0].function.name",
    ),
    ({"messages": [*HELLO, *called(), *called()]}, "messages[3].tool_calls"),
    ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 1}}}},
        "response_format.json_schema.schema.type",
    ),
]


@pytest.mark.parametrize(("changes", "param"), BAD, ids=[str(param) for _, param in BAD])
def test_what_cannot_be_honoured_is_refused_by_name(
    sdk: openai.OpenAI, model: Model, changes: dict[str, Any], param: str
) -> None:
    body = {"model": "assistant", "messages": HELLO, **changes}
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.post("/chat/completions", body=body, cast_to=object)
    assert (refused.value.param, refused.value.type) == (param, "invalid_request_error")
    assert model.stats()["calls"] == 0


def test_answer_ends_before_a_text_that_stops_it(sdk: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "What is 17 * 23?"}]
    whole = sdk.chat.completions.create(model="analyst", messages=messages).choices[0].message.content or ""
    answer = sdk.chat.completions.create(model="analyst", messages=messages, stop="391")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content == whole.partition("391")[0]


def test_what_has_no_effect_is_accepted(sdk: openai.OpenAI) -> None:
    body: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 7,
        "presence_penalty": 1,
        "store": False,
    }
    body |= {
        "frequency_penalty": -1,
        "verbosity": "low",
        "parallel_tool_calls": True,
        "logprobs": None,
        "n": 1,
    }
    answer = sdk.post(
        "/chat/completions", body={"model": "assistant", "messages": HELLO, **body}, cast_to=httpx2.Response
    )
    assert answer.status_code == 200


def test_agents_are_listed_as_models(sdk: openai.OpenAI) -> None:
    listed = [model.id for model in sdk.models.list()]
    assert listed[: len(BUNDLED)] == BUNDLED and "claude-haiku-5-5" in listed
    assert sdk.models.retrieve("support").owned_by == "slipway"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("nobody")


def test_errors_have_their_classes(slipway: Slipway, sdk: openai.OpenAI, model: Model) -> None:
    messages: Any = HELLO
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.chat.completions.create(model="gpt-nothing", messages=messages)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as wrong, sdk_of(slipway, "slp_wrong") as other:
        other.chat.completions.create(model="assistant", messages=messages)
    assert wrong.value.code == "invalid_api_key"
    model.control(fault="400")
    with pytest.raises(openai.BadRequestError) as rejected:
        sdk.chat.completions.create(model="assistant", messages=[{"role": "user", "content": "fault 400"}])
    assert rejected.value.code == "model_rejected"


def test_the_sdk_tries_again_where_that_helps_and_only_there(
    slipway: Slipway, key: str, model: Model
) -> None:
    """A failed model is worth another try, an answer that breaks off at its end is not asked twice for the same key."""
    messages: Any = [{"role": "user", "content": "Is the model there again?"}]
    with sdk_of(slipway, key, retries=3) as sdk:
        model.control(fault="garbage", times=1)
        assert sdk.chat.completions.create(model="assistant", messages=messages).choices[0].message.content
        model.control(fault="400")
        calls = model.stats()["calls"]
        with pytest.raises(openai.BadRequestError):
            sdk.chat.completions.create(
                model="assistant", messages=[{"role": "user", "content": "400 again"}]
            )
        assert model.stats()["calls"] == calls + 1


def test_a_failure_after_the_first_text_is_an_error_of_the_stream(sdk: openai.OpenAI, model: Model) -> None:
    model.control(fault="drop")
    messages: Any = [{"role": "user", "content": "What happens when the answer breaks off?"}]
    with pytest.raises(openai.APIError):
        list(sdk.chat.completions.create(model="assistant", messages=messages, stream=True))


def test_same_key_is_the_same_run(sdk: openai.OpenAI) -> None:
    headers = {"Idempotency-Key": "chat-once"}
    messages: Any = [{"role": "user", "content": "Once only."}]
    first, second = (
        sdk.chat.completions.create(model="assistant", messages=messages, extra_headers=headers)
        for _ in range(2)
    )
    assert first.id == second.id
