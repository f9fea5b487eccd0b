"""Events of the Messages API by an agent: a dialect that cannot take text back."""

from __future__ import annotations

import json
from typing import Any

from service.types import Event, Run, RunEvent, RunRequest
from service.web.anthropic.agent_lens import MessagesLens
from tests.web.openai.test_chat_lens import APPROVAL, USAGE, completed, resumed, text

RUN = Run(
    "run_" + "0" * 26,
    "usr_1",
    "support",
    "v1",
    "messages/stream",
    RunRequest("support", ()),
    request_id="req",
)
STARTED = RunEvent(Event.RUN_STARTED, {})


def told(*events: RunEvent) -> list[dict[str, Any]]:
    """Events of a stream, each of the run's encoded by itself."""
    lens = MessagesLens(RUN)
    frames = b"".join(lens.encode([event]) for event in (STARTED, *events)).decode().split("\n\n")[:-1]
    told = [json.loads(frame.partition("data: ")[2]) for frame in frames]
    assert [frame.partition("\n")[0].removeprefix("event: ") for frame in frames] == [
        one["type"] for one in told
    ]
    return told


def blocks(events: list[dict[str, Any]]) -> list[str]:
    """Text of each block; checks that one at a time is open, and that they are numbered."""
    found: list[str] = []
    is_open = False
    for event in events:
        if event["type"] == "content_block_start":
            assert not is_open and event["index"] == len(found)
            is_open = True
            found.append("")
        elif event["type"] == "content_block_delta":
            assert is_open and event["index"] == len(found) - 1
            found[-1] += event["delta"].get("text", event["delta"].get("partial_json", ""))
        elif event["type"] == "content_block_stop":
            assert is_open and event["index"] == len(found) - 1
            is_open = False
    assert not is_open or events[-1]["type"] == "error"
    return found


def test_text_before_a_tool_call_is_a_block_of_its_own() -> None:
    call = RunEvent(Event.TOOL_CALLED, {"call_id": "toolu_1"})
    branch = RunEvent(Event.TOOL_CALLED, {"call_id": "toolu_2", "branch": "1"})
    events = told(text("I look."), call, text("Fo"), branch, text("und."), completed("Found."))
    assert blocks(events) == ["I look.", "Found."]
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    assert events[-2]["usage"] == USAGE


def test_a_resumed_answer_that_is_the_same_goes_on() -> None:
    assert blocks(told(text("The ans"), resumed(), text("The answer"), completed("The answer is 42."))) == [
        "The answer is 42."
    ]


def test_a_resumed_answer_that_differs_is_an_error_and_never_mixed() -> None:
    events = told(text("The ans"), resumed(), text("It is"), completed("It is 42."))
    assert blocks(events) == ["The ans"]
    assert (events[-1]["type"], events[-1]["error"]["code"]) == ("error", "answer_replaced")


def test_calls_of_the_clients_tools_are_blocks_at_the_end() -> None:
    calls = [{"id": "toolu_1", "name": "weather", "arguments": {"city": "Paris"}}]
    end = completed("I look.", stop_reason="tool_use", client_calls=calls)
    events = told(text("I look."), end)
    assert blocks(events) == ["I look.", '{"city":"Paris"}']
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_run_that_waits_for_a_person_says_so() -> None:
    events = told(text("I write it."), APPROVAL, RunEvent(Event.RECONNECT, {"last_seq": 3}))
    assert blocks(events) == ["I write it.", "[Waiting for a person to approve: apr_1]"]
    assert events[-1]["type"] == "message_stop"


def test_a_run_that_is_paused_elsewhere_says_so() -> None:
    reconnect = RunEvent(Event.RECONNECT, {"last_seq": 3, "status": "paused"})
    events = told(text("I look."), resumed(), reconnect)
    assert blocks(events) == ["I look.", "[Paused: this agent is stopped]"]
    assert events[-1]["type"] == "message_stop"


def test_a_connection_that_ends_before_its_run_is_an_error() -> None:
    assert (
        told(text("I wr"), RunEvent(Event.RECONNECT, {"last_seq": 3}))[-1]["error"]["code"] == "stream_ended"
    )


def test_a_failed_run_is_an_error() -> None:
    problem = {"code": "budget_exceeded", "detail": "The cap is reached.", "status": 402, "request_id": "req"}
    last = told(text("I wr"), RunEvent(Event.RUN_FAILED, {"error": problem}))[-1]
    assert last["error"] == {
        "type": "billing_error",
        "message": "The cap is reached.",
        "code": "budget_exceeded",
    }
