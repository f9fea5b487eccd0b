"""Chunks of Chat Completions: a dialect that cannot take text back."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.types import Event, Run, RunEvent, RunRequest
from service.web.openai.chat_lens import ChatLens

RUN = Run(
    "run_" + "0" * 26, "usr_1", "support", "v1", "chat/stream", RunRequest("support", ()), request_id="req"
)
USAGE = {
    "input_tokens": 3,
    "output_tokens": 2,
    "cache_read_input_tokens": 4,
    "cache_creation_input_tokens": 5,
}
APPROVAL = RunEvent(Event.APPROVAL_REQUIRED, {"approval_id": "apr_1"})


def text(piece: str) -> RunEvent:
    return RunEvent(Event.TEXT_DELTA, {"text": piece})


def completed(output: str, **more: Any) -> RunEvent:
    result = {"output": output, "stop_reason": "end_turn", "usage": USAGE, **more}
    return RunEvent(Event.RUN_COMPLETED, result)


def resumed() -> RunEvent:
    return RunEvent(Event.RUN_RESUMED, {"from_seq": 1})


def told(*events: RunEvent, usage: bool = False) -> tuple[str, str | None, dict[str, Any] | None]:
    """(text, finish reason, error) of a stream, each event encoded by itself."""
    lens = ChatLens(RUN, counts_usage=usage)
    frames = b"".join(lens.encode([event]) for event in events).decode().split("\n\n")[:-1]
    assert frames[-1] == "data: [DONE]"
    said, reason, error = "", None, None
    for frame in frames[:-1]:
        chunk = json.loads(frame.removeprefix("data: "))
        error = error or chunk.get("error")
        for choice in chunk.get("choices", ()):
            said += choice["delta"].get("content") or ""
            reason = reason or choice["finish_reason"]
    return said, reason, error


def test_text_before_a_tool_call_is_a_paragraph_of_its_own() -> None:
    call = RunEvent(Event.TOOL_CALLED, {"call_id": "toolu_1"})
    branch = RunEvent(Event.TOOL_CALLED, {"call_id": "toolu_2", "branch": "1"})
    assert told(text("I look."), call, text("Fo"), branch, text("und."), completed("Found.")) == (
        "I look.\n\nFound.",
        "stop",
        None,
    )


def test_a_resumed_answer_that_is_the_same_goes_on() -> None:
    events = (text("The ans"), resumed(), text("The answer"), completed("The answer is 42."))
    assert told(*events) == ("The answer is 42.", "stop", None)


def test_a_resumed_answer_that_differs_is_an_error_and_never_mixed() -> None:
    said, reason, error = told(text("The ans"), resumed(), text("It is"), completed("It is 42."))
    assert (said, reason) == ("The ans", None)
    assert error is not None and (error["code"], error["request_id"]) == ("answer_replaced", "req")


def test_a_gap_is_filled_from_the_end() -> None:
    gap = RunEvent(Event.GAP, {"from_seq": 2, "to_seq": 5})
    assert (
        told(text("One, "), gap, text("four."), completed("One, two, three, four."))[0]
        == "One, two, three, four."
    )


def test_a_resumption_before_any_text_is_not_noticed() -> None:
    assert told(resumed(), text("Yes."), completed("Yes.")) == ("Yes.", "stop", None)


def test_a_run_that_waits_for_a_person_says_so() -> None:
    said, reason, error = told(text("I write it."), APPROVAL, RunEvent(Event.RECONNECT, {"last_seq": 3}))
    assert (said, reason, error) == ("I write it.\n\n[Waiting for a person to approve: apr_1]", "stop", None)


def test_a_run_that_waits_for_money_says_so_unless_it_goes_on() -> None:
    waits = RunEvent(Event.BUDGET_REQUIRED, {"budget": "user"})
    reconnect = RunEvent(Event.RECONNECT, {"last_seq": 3})
    assert told(waits, reconnect)[0] == "[Waiting for room under a spending cap]"
    _, _, error = told(waits, resumed(), reconnect)
    assert error is not None and error["code"] == "stream_ended"


@pytest.mark.parametrize(
    ("status", "note"),
    [
        ("waiting_approval", "[Waiting for a person to approve]"),
        ("waiting_budget", "[Waiting for room under a spending cap]"),
        ("paused", "[Paused: this agent is stopped]"),
    ],
)
def test_a_run_that_waits_elsewhere_says_so(status: str, note: str) -> None:
    reconnect = RunEvent(Event.RECONNECT, {"last_seq": 3, "status": status})
    assert told(text("I look."), resumed(), reconnect) == (f"I look.\n\n{note}", "stop", None)


def test_a_connection_that_ends_before_its_run_is_an_error() -> None:
    _, reason, error = told(text("I wr"), RunEvent(Event.RECONNECT, {"last_seq": 3}))
    assert reason is None and error is not None and error["code"] == "stream_ended"


def test_a_failed_run_is_an_error() -> None:
    problem = {"code": "budget_exceeded", "detail": "The cap is reached.", "status": 402, "request_id": "req"}
    _, reason, error = told(text("I wr"), RunEvent(Event.RUN_FAILED, {"error": problem}))
    assert reason is None and error is not None
    assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")


def test_a_cut_answer_has_its_reason() -> None:
    assert told(text("The"), completed("The", stop_reason="max_tokens"))[1] == "length"
