"""Agents as models of the Messages API before the official SDK: answers and money of `invoke`, errors by classes."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import httpx2
import pytest

from tests.conftest import ROOT, Model, Slipway
from tests.web.anthropic.conftest import sdk_of

BUNDLED = sorted(folder.parent.name for folder in (ROOT / "agents").glob("*/agent.yaml"))
HELLO: Any = [{"role": "user", "content": "Hello"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "Weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def run_of(client: httpx2.Client, message_id: str) -> dict[str, Any]:
    run: dict[str, Any] = client.get(f"/v1/runs/run_{message_id.removeprefix('msg_')}").json()
    return run


@pytest.mark.parametrize("agent", BUNDLED)
def test_answer_is_that_of_invoke_by_json_and_by_stream(
    sdk: anthropic.Anthropic, client: httpx2.Client, agent: str
) -> None:
    question = (client.get(f"/v1/agents/{agent}").json()["examples"] or ["What is 17 * 23?"])[0]
    told = client.post(f"/v1/agents/{agent}/invoke", json={"input": question, "cache": "bypass"}).json()
    messages: Any = [{"role": "user", "content": question}]
    whole = sdk.messages.create(model=agent, max_tokens=4_000, messages=messages)
    with sdk.messages.stream(model=agent, max_tokens=4_000, messages=messages) as events:
        streamed = events.get_final_message()
    assert text_of(whole) == streamed.content[-1].text == told["output"]  # type: ignore[union-attr]
    assert whole.stop_reason == streamed.stop_reason == "end_turn"
    run = run_of(client, whole.id)
    assert (run["status"], run["door"], run["usage"]) == ("succeeded", "messages/invoke", told["usage"])
    assert whole.usage.output_tokens == run["usage"]["output_tokens"]


def test_the_order_of_events_is_that_of_the_api(sdk: anthropic.Anthropic) -> None:
    messages: Any = [{"role": "user", "content": "In what order do events come?"}]
    raw = sdk.messages.create(model="assistant", max_tokens=500, messages=messages, stream=True)
    names = [event.type for event in raw]
    inner = names[2:-3]
    assert [names[0], *dict.fromkeys(inner)] == ["message_start", "content_block_delta"]
    assert names[1:2] + names[-3:] == [
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]


def test_instructions_and_earlier_turns_reach_the_model(sdk: anthropic.Anthropic) -> None:
    messages: Any = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": [{"type": "text", "text": "Hello Ada.", "citations": None}]},
        {
            "role": "user",
            "content": [{"type": "text", "text": "What is my name?", "cache_control": None}],
        },
    ]
    system: Any = [{"type": "text", "text": "Be brief."}]
    assert "Ada" in text_of(
        sdk.messages.create(model="assistant", max_tokens=99, messages=messages, system=system)
    )


@pytest.mark.parametrize("stream", [False, True], ids=["json", "stream"])
def test_tools_of_the_client_in_a_round_trip(
    sdk: anthropic.Anthropic, client: httpx2.Client, stream: bool
) -> None:
    messages: Any = [{"role": "user", "content": 'What is 17% of 2340? And call get_weather for "Paris".'}]
    answer = asked(sdk, messages, stream)
    [call] = [block for block in answer.content if block.type == "tool_use"]
    assert (answer.stop_reason, call.name, call.input) == ("tool_use", "get_weather", {"city": "Paris"})
    messages.append({"role": "assistant", "content": answer.content})
    result = {
        "type": "tool_result",
        "tool_use_id": call.id,
        "content": [{"type": "text", "text": "21 degrees"}],
    }
    messages.append({"role": "user", "content": [result]})
    answer = asked(sdk, messages, stream)
    assert answer.stop_reason == "end_turn" and "397.8" in text_of(answer) and "21 degrees" in text_of(answer)
    assert "calculator" in [tool["name"] for tool in run_of(client, answer.id)["tools"]]
    messages += [{"role": "assistant", "content": answer.content}, {"role": "user", "content": "Thanks."}]
    assert asked(sdk, messages, stream).stop_reason == "end_turn"


def asked(sdk: anthropic.Anthropic, messages: Any, stream: bool) -> Any:
    if not stream:
        return sdk.messages.create(model="analyst", max_tokens=500, messages=messages, tools=[WEATHER])
    with sdk.messages.stream(model="analyst", max_tokens=500, messages=messages, tools=[WEATHER]) as events:
        return events.get_final_message()


def test_structured_answer_and_stop_sequences(sdk: anthropic.Anthropic) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}},
        "required": ["name"],
        "additionalProperties": False,
    }
    config: Any = {"effort": "low", "format": {"type": "json_schema", "schema": schema}}
    answer = sdk.messages.create(model="assistant", max_tokens=500, messages=HELLO, output_config=config)
    assert set(json.loads(text_of(answer))) == {"name"}
    messages: Any = [{"role": "user", "content": "What is 17 * 23?"}]
    answer = sdk.messages.create(model="analyst", max_tokens=500, messages=messages, stop_sequences=["391"])
    assert (answer.stop_reason, answer.stop_sequence) == ("stop_sequence", "391")
    assert "391" not in text_of(answer)


def test_agents_are_listed_as_models(sdk: anthropic.Anthropic) -> None:
    listed = [model.id for model in sdk.models.list()]
    assert listed[: len(BUNDLED)] == BUNDLED
    assert all(name.startswith("claude-") for name in listed[len(BUNDLED) :])
    assert sdk.models.retrieve("support").display_name == "support"
    with pytest.raises(anthropic.NotFoundError):
        sdk.models.retrieve("nobody")


def test_end_user_is_kept_with_the_run(sdk: anthropic.Anthropic, client: httpx2.Client) -> None:
    metadata: Any = {"user_id": "customer-7"}
    messages: Any = [{"role": "user", "content": "For whom is this?"}]
    sdk.messages.create(model="assistant", max_tokens=99, messages=messages, metadata=metadata)
    usage = client.get("/v1/usage", params={"group_by": "end_user"}).json()
    assert "customer-7" in json.dumps(usage)


def called(name: str = "get_weather") -> list[dict[str, Any]]:
    """A turn of the assistant that calls, and the result."""
    call = {"type": "tool_use", "id": "call_1", "name": name, "input": {}}
    result = {"type": "tool_result", "tool_use_id": "call_1", "content": "Sun."}
    return [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"messages": [*HELLO, *called("a b")]}, "/messages/1/content/0/name"),
    ({"messages": [*HELLO, *called(), *called()]}, "/messages/3/content"),
    ({"max_tokens": 0}, "/max_tokens"),
    ({"messages": []}, "/messages"),
    ({"messages": [{"role": "assistant", "content": "Hi"}, *HELLO]}, "/messages/0/role"),
    ({"messages": [*HELLO, {"role": "assistant", "content": "Hi"}]}, "/messages/1/role"),
    ({"messages": [{"role": "user", "content": "  "}]}, "/messages/0/content"),
    ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "/messages/0/content/0"),
    (
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x"}]}]},
        "/messages/0/content",
    ),
    ({"mcp_servers": [{"name": "x"}]}, "/mcp_servers"),
    ({"container": "x"}, "/container"),
    ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "/tools/0/type"),
    ({"tools": [WEATHER, WEATHER]}, "/tools/1/name"),
    ({"tools": [WEATHER], "tool_choice": {"type": "any"}}, "/tool_choice/type"),
    ({"tool_choice": {"type": "auto"}}, "/tool_choice"),
    ({"metadata": {"user_id": "x" * 65}}, "/metadata/user_id"),
    ({"no_such_field": 1}, "/no_such_field"),
]


@pytest.mark.parametrize(("changes", "where"), BAD, ids=[where for _, where in BAD])
def test_what_cannot_be_honoured_is_refused_by_name(
    sdk: anthropic.Anthropic, model: Model, changes: dict[str, Any], where: str
) -> None:
    body = {"model": "assistant", "max_tokens": 99, "messages": HELLO, **changes}
    with pytest.raises(anthropic.BadRequestError) as refused:
        sdk.post("/v1/messages", body=body, cast_to=object)
    told: Any = refused.value.body
    assert told["error"]["type"] == "invalid_request_error" and where in told["error"]["message"]
    assert model.stats()["calls"] == 0


def test_what_has_no_effect_is_accepted(sdk: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "adaptive"}
    answer = sdk.messages.create(
        model="assistant",
        max_tokens=99,
        messages=HELLO,
        thinking=thinking,
        service_tier="auto",
        extra_body={"temperature": 1.0, "top_p": 0.9, "top_k": 5},
        extra_headers={"anthropic-beta": "some-beta-2026-01-01"},
    )
    assert answer.stop_reason == "end_turn"


def test_errors_have_their_classes(slipway: Slipway, sdk: anthropic.Anthropic, model: Model) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        sdk.messages.create(model="claude-nothing", max_tokens=9, messages=HELLO)
    assert missing.value.request_id
    with pytest.raises(anthropic.AuthenticationError), sdk_of(slipway, "slp_wrong") as other:
        other.messages.create(model="assistant", max_tokens=9, messages=HELLO)
    model.control(fault="drop")
    with (
        pytest.raises(anthropic.APIStatusError) as broken,
        sdk.messages.stream(
            model="assistant", max_tokens=99, messages=[{"role": "user", "content": "Will this break off?"}]
        ) as events,
    ):
        events.get_final_message()
    told: Any = broken.value.body
    assert told["error"]["code"] == "model_interrupted"


def test_a_cap_is_a_billing_error_that_is_not_tried_again(slipway: Slipway, sdk: anthropic.Anthropic) -> None:
    with slipway.client() as admin:
        me = admin.get("/v1/auth/me").json()["id"]
        cap = {"amount_usd": "0.000001", "period": "day"}
        admin.put(f"/v1/admin/budgets/user:{me}", json=cap).raise_for_status()
        try:
            with pytest.raises(anthropic.APIStatusError) as refused:
                sdk.messages.create(
                    model="assistant", max_tokens=99, messages=[{"role": "user", "content": "A cap?"}]
                )
            assert refused.value.status_code == 402
            assert refused.value.response.headers["x-should-retry"] == "false"
        finally:
            admin.put(f"/v1/admin/budgets/user:{me}", json={**cap, "amount_usd": None}).raise_for_status()
