"""Responses before the official SDK: created, streamed, structured, with functions, and errors by their classes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx2
import openai
import pytest
from pydantic import BaseModel

from tests.conftest import Model, Slipway
from tests.web.openai.conftest import sdk_of

HELLO = {"role": "user", "content": "Hello"}
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "Weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
AROUND = ["response.created", "response.in_progress"]
MESSAGE = ["response.output_item.added", "response.content_part.added"]
MESSAGE_DONE = ["response.output_text.done", "response.content_part.done", "response.output_item.done"]


def run_of(client: httpx2.Client, response_id: str) -> dict[str, Any]:
    run: dict[str, Any] = client.get(f"/v1/runs/run_{response_id.removeprefix('resp_')}").json()
    return run


def test_events_are_numbered_in_their_order(sdk: openai.OpenAI) -> None:
    with sdk.responses.stream(model="analyst", input="What is 17 * 23?") as stream:
        events = list(stream)
    assert [event.sequence_number for event in events] == list(range(len(events)))
    names = [event.type for event in events if event.type != "response.output_text.delta"]
    assert names[:4] == AROUND + MESSAGE and names[-4:] == [*MESSAGE_DONE, "response.completed"]


def test_usage_is_that_of_the_run(sdk: openai.OpenAI, client: httpx2.Client) -> None:
    answer = sdk.responses.create(model="analyst", input="What is 17 * 24?")
    used = run_of(client, answer.id)["usage"]
    assert answer.usage is not None and answer.usage.output_tokens == used["output_tokens"]
    asked = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert answer.usage.input_tokens == sum(used[name] for name in asked)


NAMED = {"type": "function", "name": "get_weather"}


@pytest.mark.parametrize(
    "choice",
    ["required", NAMED, {"type": "allowed_tools", "mode": "required", "tools": [NAMED]}],
    ids=["any", "named", "allowed"],
)
def test_a_forced_call(sdk: openai.OpenAI, choice: Any) -> None:
    """Of a function that the question has nothing to do with, by an agent that has tools of its own."""
    other = {"type": "function", "name": "alarm", "parameters": {"type": "object"}}
    tools: Any = [WEATHER] if choice == "required" else [other, WEATHER]
    answer = sdk.responses.create(model="analyst", input="Hello", tools=tools, tool_choice=choice)
    [call] = [item for item in answer.output if item.type == "function_call"]
    assert (call.name, answer.tool_choice if isinstance(choice, str) else choice) == ("get_weather", choice)


def test_a_model_itself(sdk: openai.OpenAI, client: httpx2.Client) -> None:
    answer = sdk.responses.create(model="claude-haiku-5-5", input="Hello", instructions="Be brief.")
    assert answer.status == "completed" and answer.output_text
    run = run_of(client, answer.id)
    assert (run["agent"], run["status"], run["steps"]) == ("claude-haiku-5-5", "succeeded", 1)


def test_instructions_and_earlier_turns_reach_the_model(sdk: openai.OpenAI) -> None:
    items: Any = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": [{"type": "input_text", "text": "What is my name?"}]},
    ]
    answer = sdk.responses.create(model="assistant", input=items, instructions="Be kind.")
    assert "Ada" in answer.output_text and answer.instructions == "Be kind."
    led: Any = [{"role": "assistant", "content": "I am Bob."}, {"role": "user", "content": "Who are you?"}]
    assert sdk.responses.create(model="assistant", input=led).status == "completed"


@pytest.mark.parametrize("agent", ["assistant", "analyst"])
@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_functions_of_the_client_in_a_round_trip(
    sdk: openai.OpenAI, client: httpx2.Client, agent: str, stream: bool
) -> None:
    question = 'Call get_weather for "Paris".' + (" What is 17% of 2340?" if agent == "analyst" else "")
    items: Any = [{"role": "user", "content": question}]
    answer = asked(sdk, stream, model=agent, input=items, tools=[WEATHER])
    [call] = [item for item in answer.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments), answer.status) == (
        "get_weather",
        {"city": "Paris"},
        "completed",
    )
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees in Paris"}
    whole = asked(sdk, stream, model=agent, input=[*items, *answer.output, result], tools=[WEATHER])
    kept = asked(sdk, stream, model=agent, input=[result], previous_response_id=answer.id)
    for last in (whole, kept):
        assert "21 degrees" in last.output_text and last.status == "completed"
        if agent == "analyst":
            assert "397.8" in last.output_text
            assert "calculator" in [tool["name"] for tool in run_of(client, last.id)["tools"]]


def asked(sdk: openai.OpenAI, stream: bool, **body: Any) -> Any:
    if not stream:
        return sdk.responses.create(**body)
    with sdk.responses.stream(**body) as events:
        return events.get_final_response()


def test_arguments_of_a_function_are_streamed(sdk: openai.OpenAI) -> None:
    tools: Any = [WEATHER]
    with sdk.responses.stream(model="assistant", input='Call get_weather for "Rome".', tools=tools) as stream:
        events: list[Any] = list(stream)
    made = {event.type: event for event in events}
    assert json.loads(made["response.function_call_arguments.delta"].delta) == {"city": "Rome"}
    assert made["response.function_call_arguments.done"].name == "get_weather"
    assert made["response.completed"].response.output[-1].call_id.startswith("call_")


class Person(BaseModel):
    name: str
    city: str


def test_structured_answer(sdk: openai.OpenAI) -> None:
    parsed = sdk.responses.parse(model="assistant", input="Ada lives in London.", text_format=Person)
    assert isinstance(parsed.output_parsed, Person)
    with sdk.responses.stream(model="assistant", input="Ada lives in Paris.", text_format=Person) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Person)
    form: Any = {"format": {"type": "json_object"}}
    answer = sdk.responses.create(model="assistant", input="Ada lives in Rome.", text=form)
    assert isinstance(json.loads(answer.output_text), dict)


def test_an_answer_that_meets_its_limit_is_incomplete(sdk: openai.OpenAI) -> None:
    body: dict[str, Any] = {"model": "assistant", "input": "Tell me of limits.", "max_output_tokens": 5}
    answer = sdk.responses.create(**body)
    assert answer.incomplete_details is not None
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    *_, last = sdk.responses.create(**body, stream=True)
    assert last.type == "response.incomplete" and last.response.max_output_tokens == 5


def test_an_answer_repeats_what_was_asked(sdk: openai.OpenAI) -> None:
    body: dict[str, Any] = {"metadata": {"case": "7"}, "tools": [WEATHER], "tool_choice": "none"}
    body |= {"temperature": 0.5, "truncation": "auto", "reasoning": {"effort": "low"}}
    body |= {"include": ["reasoning.encrypted_content"], "prompt_cache_key": "k"}
    answer: Any = sdk.responses.create(model="assistant", input="Say it again.", **body)
    again: Any = sdk.responses.retrieve(answer.id)
    for told in (answer, again):
        assert (told.metadata, told.temperature, told.truncation) == ({"case": "7"}, 0.5, "auto")
        assert (told.tool_choice, told.prompt_cache_key, told.store) == ("none", "k", True)
        assert (told.tools[0].name, told.reasoning.effort) == ("get_weather", "low")


CALL = {"type": "function_call", "call_id": "call_1", "name": "get_weather", "arguments": "{}"}
RESULT = {"type": "function_call_output", "call_id": "call_1", "output": "Sun."}
BAD: list[tuple[dict[str, Any], str | None]] = [
    ({"conversation": "conv_1"}, "conversation"),
    ({"prompt": {"id": "p"}}, "prompt"),
    ({"max_tool_calls": 1}, "max_tool_calls"),
    ({"top_logprobs": 2}, "top_logprobs"),
    ({"no_such_field": 1}, "no_such_field"),
    ({"service_tier": "flex"}, "service_tier"),
    ({"include": ["message.output_text.logprobs"]}, "include[0]"),
    ({"background": True, "store": False}, "store"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"safety_identifier": "x" * 65}, "safety_identifier"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name"),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
    ({"input": []}, "input"),
    ({"input": " "}, "input[0].content"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
    ({"input": [{"role": "robot", "content": "Hi"}]}, "input[0].role"),
    ({"input": [{"role": "user", "content": [{"type": "input_audio"}]}]}, "input[0].content[0].type"),
    ({"input": [HELLO, {"role": "assistant", "content": "Hi"}]}, "input"),
    ({"input": [HELLO, RESULT]}, "input[1].call_id"),
    ({"input": [HELLO, CALL]}, "input"),
    ({"input": [HELLO, CALL, HELLO]}, "input[2]"),
    ({"input": [HELLO, CALL, RESULT, CALL, RESULT]}, "input[3].call_id"),
    ({"input": [HELLO, {**CALL, "arguments": "[]"}, RESULT]}, "input[1].arguments"),
    ({"input": [HELLO, {"type": "function_call", "name": "f"}]}, "input[1].call_id"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema"),
    (
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": 1}}}},
        "text.format.schema.type",
    ),
    ({"previous_response_id": "resp_none"}, "previous_response_id"),
    ({"stream_options": {"include_obfuscation": True}}, "stream_options.include_obfuscation"),
]


@pytest.mark.parametrize(("changes", "param"), BAD, ids=[str(param) for _, param in BAD])
def test_what_cannot_be_honoured_is_refused_by_name(
    sdk: openai.OpenAI, model: Model, changes: dict[str, Any], param: str
) -> None:
    body = {"model": "assistant", "input": [HELLO], **changes}
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.post("/responses", body=body, cast_to=object)
    assert (refused.value.param, refused.value.type) == (param, "invalid_request_error")
    assert model.stats()["calls"] == 0


def test_errors_have_their_classes(slipway: Slipway, sdk: openai.OpenAI, model: Model) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        sdk.responses.create(model="gpt-nothing", input="Hello")
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError), sdk_of(slipway, "slp_wrong") as other:
        other.responses.create(model="assistant", input="Hello")
    model.control(fault="400")
    with pytest.raises(openai.BadRequestError) as rejected:
        sdk.responses.create(model="assistant", input="a fault of responses")
    assert rejected.value.code == "model_rejected"
    with pytest.raises(openai.NotFoundError):
        sdk.get("/responses/resp_none/nothing", cast_to=object)


def test_a_failure_after_the_first_text_fails_the_response(sdk: openai.OpenAI, model: Model) -> None:
    model.control(fault="drop")
    *_, last = sdk.responses.create(model="assistant", input="What if it breaks off here?", stream=True)
    assert last.type == "response.failed" and last.response.error is not None
    again = sdk.responses.retrieve(last.response.id)
    assert again.status == "failed" and again.error == last.response.error


def test_same_key_is_the_same_response(sdk: openai.OpenAI) -> None:
    headers = {"Idempotency-Key": "responses-once"}
    first, second = (
        sdk.responses.create(model="assistant", input="Once only, please.", extra_headers=headers)
        for _ in range(2)
    )
    assert first.id == second.id


def test_many_streams_at_once(slipway: Slipway, key: str) -> None:
    async def all_of_them() -> list[str]:
        http = httpx2.AsyncClient(trust_env=False, timeout=60)
        url = f"{slipway.url}/v1"
        async with openai.AsyncOpenAI(api_key=key, base_url=url, max_retries=5, http_client=http) as sdk:

            async def one(number: int) -> str:
                question = f"Number {number} of many?"
                async with sdk.responses.stream(model="assistant", input=question) as stream:
                    return (await stream.get_final_response()).output_text

            return await asyncio.gather(*map(one, range(8)))

    assert all(f"Number {number}" in text for number, text in enumerate(asyncio.run(all_of_them())))
