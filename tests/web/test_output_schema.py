"""`output_schema` and the analyst's tables at the doors, with the offline model."""

from __future__ import annotations

import json
from typing import Any

import httpx2
import pytest

from service.ids import new_id
from tests.conftest import wait_until
from tests.web.test_doors import events_of

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"answer": {"type": "string"}, "sure": {"type": "boolean"}},
    "required": ["answer", "sure"],
}
QUESTION = {"input": "Within how many days can I get a refund?", "output_schema": SCHEMA}
IN_WORDS = {**SCHEMA, "additionalProperties": {"type": "integer"}}  # the Messages API takes no such schema
DOORS = ["invoke", "stream", "tasks"]


def result_of(client: httpx2.Client, agent: str, door: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = client.post(f"/v1/agents/{agent}/{door}", json=body)
    if door == "invoke":
        result: dict[str, Any] = answer.json()
    elif door == "stream":
        events = events_of(answer.text)
        result = events[-1][2]
        assert "".join(data["text"] for _, name, data in events if name == "text.delta") == result["output"]
    else:
        path = answer.headers["Location"]
        wait_until(lambda: client.get(path).json()["status"] in ("succeeded", "failed"), "the task's end")
        result = client.get(path).json()
    return result


@pytest.mark.parametrize("door", ["invoke", "stream"])
@pytest.mark.parametrize("agent", ["assistant", "support", "analyst"])
@pytest.mark.parametrize("schema", [SCHEMA, IN_WORDS], ids=["format", "words"])
def test_every_pattern_answers_in_the_form(
    client: httpx2.Client, agent: str, door: str, schema: dict[str, Any]
) -> None:
    result = result_of(client, agent, door, {**QUESTION, "output_schema": schema, "cache": "bypass"})
    assert result["status"] == "succeeded", result
    assert result["structured"] == json.loads(result["output"])
    assert result["structured"].keys() == {"answer", "sure"}
    shown = client.get(f"/v1/runs/{result['run_id']}").json()
    assert (shown["structured"], shown["output"]) == (result["structured"], result["output"])


def test_a_repeated_key_gives_the_same_value(client: httpx2.Client) -> None:
    key = {"Idempotency-Key": new_id("k")}
    first, again = (client.post("/v1/agents/support/invoke", json=QUESTION, headers=key) for _ in range(2))
    assert first.json() == again.json() and first.json()["structured"]["answer"]
    other = client.post("/v1/agents/support/invoke", json={"input": QUESTION["input"]}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")


def test_the_turns_of_a_session_keep_the_text(client: httpx2.Client) -> None:
    session = client.post("/v1/sessions", json={"agent": "assistant"}).json()["id"]
    result = result_of(client, "assistant", "invoke", {**QUESTION, "session_id": session})
    turns = client.get(f"/v1/sessions/{session}").json()["messages"]
    assert [turn["content"] for turn in turns if turn["role"] == "assistant"] == [result["output"]]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("schema", "pointer"),
    [
        ({"type": "objec"}, "/output_schema/type"),
        ({"properties": {"a": {"$ref": "https://example.com/"}}}, "/output_schema/properties/a/$ref"),
        ({"$ref": "#"}, "/output_schema/$ref"),
        ({"properties": {"a": {"pattern": "(?=x)"}}}, "/output_schema/properties/a/pattern"),
        ({"description": "x" * 40_000}, "/output_schema"),
        ([], "/output_schema"),
        ("{}", "/output_schema"),
        (True, "/output_schema"),
    ],
)
def test_a_schema_is_checked_at_the_door(
    client: httpx2.Client, door: str, schema: object, pointer: str
) -> None:
    answer = client.post(f"/v1/agents/assistant/{door}", json={"input": "Hi", "output_schema": schema})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


def test_agents_show_examples_and_schema(client: httpx2.Client) -> None:
    shown = {agent["id"]: agent for agent in client.get("/v1/agents").json()["data"]}
    assert shown["analyst"]["output_schema"] is None and len(shown["analyst"]["examples"]) >= 3
    assert client.get("/v1/agents/analyst").json() == shown["analyst"]


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_the_analyst_answers_from_its_table(client: httpx2.Client, door: str) -> None:
    question = {"input": "How many teams were on the Fleet plan in June 2026?", "cache": "bypass"}
    result = result_of(client, "analyst", door, question)
    assert [(tool["name"], tool["ok"]) for tool in result["tools"]] == [("query_table", True)]
    assert "3,480" in result["output"]
