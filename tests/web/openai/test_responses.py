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
from tests.web.openai.test_chat import BUNDLED, question_of

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


@pytest.mark.parametrize("agent", BUNDLED)
def test_answer_is_that_of_invoke_by_json_and_by_stream(
    sdk: openai.OpenAI, client: httpx2.Client, agent: str
) -> None:
    question = question_of(client, agent)
    told = client.post(f"/v1/agents/{agent}/invoke", json={"input": question, "cache": "bypass"}).json()
    whole = sdk.responses.create(model=agent, input=question)
    assert (whole.status, whole.output_text, whole.model) == ("completed", told["output"], agent)
    with sdk.responses.stream(model=agent, input=question) as stream:
        events = list(stream)
        last = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    names = [event.type for event in events if event.type != "response.output_text.delta"]
    assert names[:4] == AROUND + MESSAGE and names[-4:] == [*MESSAGE_DONE, "response.completed"]
    assert last.output_text.endswith(told["output"]) and last.status == "completed"
    run = run_of(client, whole.id)
    assert (run["status"], run["door"], run["output"]) == ("succeeded", "responses/invoke", told["output"])
    assert run["usage"] == told["usage"]
    used = told["usage"]
    assert whole.usage is not None and whole.usage.output_tokens == used["output_tokens"]
    asked = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    assert whole.usage.input_tokens == sum(used[name] for name in asked)
