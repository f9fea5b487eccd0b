"""Events of Responses: numbered by the run's events, and a dialect that cannot take text back."""

from __future__ import annotations

import json
from typing import Any

from service.types import Event, Run, RunEvent, RunRequest
from service.web.openai.responses_body import ResponseBody
from service.web.openai.responses_lens import ResponsesLens
from tests.web.openai.test_chat_lens import APPROVAL, RUN, completed, resumed, text

RECONNECT = RunEvent(Event.RECONNECT, {"last_seq": 3})
STARTED = RunEvent(Event.RUN_STARTED, {})
CALL = RunEvent(Event.TOOL_CALLED, {"call_id": "toolu_1"})


def fields(**changes: Any) -> dict[str, Any]:
    return ResponseBody(model="support", input="Hello", **changes).repeated


def done(output: str, **more: Any) -> RunEvent:
    return completed(output, latency_ms=5, **more)


def told(*events: RunEvent, lens: ResponsesLens | None = None) -> list[dict[str, Any]]:
    """Events of a stream, each of the run's encoded by itself."""
    made = lens or ResponsesLens(RUN, fields())
    frames = b"".join(made.encode([event]) for event in events).decode().split("\n\n")[:-1]
    found = []
    for frame in frames:
        if frame == "data: [DONE]":
            continue
        name, _, data = frame.partition("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def said(events: list[dict[str, Any]]) -> str:
    return "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")


def test_text_before_a_tool_call_is_a_message_of_its_own() -> None:
    branch = RunEvent(Event.TOOL_CALLED, {"call_id": "toolu_2", "branch": "1"})
    events = told(STARTED, text("I look."), CALL, text("Fo"), branch, text("und."), done("Found."))
    output = events[-1]["response"]["output"]
    assert [(item["content"][0]["text"], item["phase"]) for item in output] == [
        ("I look.", "commentary"),
        ("Found.", "final_answer"),
    ]
    indexes = [event["output_index"] for event in events if "output_index" in event]
    assert indexes == sorted(indexes) and set(indexes) == {0, 1}
    assert len({item["id"] for item in output}) == 2


def test_numbers_do_not_depend_on_what_the_client_has() -> None:
    run = (STARTED, text("One "), text("two."), done("One two."))
    whole = told(*run)
    assert [event["sequence_number"] for event in whole] == list(range(len(whole)))
    for after in range(-1, len(whole)):
        assert told(*run, lens=ResponsesLens(RUN, fields(), after=after)) == whole[after + 1 :]


def test_a_lost_beginning_has_the_same_numbers() -> None:
    gap = RunEvent(Event.GAP, {"from_seq": 1, "to_seq": 2})
    assert told(gap, done("All of it.")) == told(STARTED, text("All of it."), done("All of it."))


def test_a_resumed_answer_that_is_the_same_goes_on() -> None:
    events = told(STARTED, text("The ans"), resumed(), text("The answer"), done("The answer is 42."))
    assert said(events) == "The answer is 42." and events[-1]["type"] == "response.completed"


def test_a_resumed_answer_that_differs_is_an_error_and_never_mixed() -> None:
    events = told(STARTED, text("The ans"), resumed(), text("It is"), done("It is 42."))
    assert said(events) == "The ans" and events[-1]["type"] == "error"
    assert (events[-1]["error"]["code"], events[-1]["code"]) == ("answer_replaced", "answer_replaced")


def test_a_run_that_waits_ends_as_incomplete_and_says_why() -> None:
    events = told(STARTED, text("I write."), CALL, APPROVAL, RECONNECT)
    last = events[-1]["response"]
    assert (last["status"], last["incomplete_details"]) == ("incomplete", {"reason": "waiting_approval"})
    assert "apr_1" in last["output"][-1]["content"][0]["text"]
    budget = RunEvent(Event.BUDGET_REQUIRED, {})
    reason = told(STARTED, budget, RECONNECT)[-1]["response"]["incomplete_details"]["reason"]
    assert reason == "waiting_budget"


def test_a_stream_in_the_background_that_waits_is_left_open() -> None:
    def lens(after: int = -1) -> ResponsesLens:
        return ResponsesLens(RUN, fields(background=True), after=after, resumable=True)

    waiting = told(STARTED, text("I write."), CALL, APPROVAL, RECONNECT, lens=lens())
    assert [event["type"] for event in waiting[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert waiting[-1]["type"] == "response.output_item.done"
    rest = (STARTED, text("I write."), CALL, APPROVAL, resumed(), text("Done."), done("Done."))
    after = waiting[-1]["sequence_number"]
    again = told(*rest, lens=lens(after))
    assert [event["sequence_number"] for event in again] == list(range(after + 1, after + 1 + len(again)))
    assert said(again) == "Done."


def test_a_stream_that_ends_while_its_run_goes_on() -> None:
    assert told(STARTED, text("Half"), RECONNECT)[-1]["code"] == "stream_ended"


def test_a_failed_run_and_a_cancelled_one() -> None:
    problem = {"code": "model_error", "detail": "No answer.", "request_id": "req"}
    failed = told(STARTED, text("Half"), RunEvent(Event.RUN_FAILED, {"error": problem}))
    assert (failed[-1]["type"], failed[-1]["response"]["status"]) == ("response.failed", "failed")
    assert failed[-1]["response"]["error"] == {"code": "model_error", "message": "No answer."}
    assert failed[-1]["response"]["output"][0]["status"] == "incomplete"
    stopped = {**problem, "code": "run_cancelled"}
    cancelled = told(STARTED, RunEvent(Event.RUN_CANCELLED, {"error": stopped}))
    assert (cancelled[-1]["type"], cancelled[-1]["response"]["status"]) == (
        "response.incomplete",
        "cancelled",
    )


def test_a_run_of_another_id_is_another_response() -> None:
    other = Run("run_" + "1" * 26, "usr_1", "support", "v1", "responses/stream", RunRequest("support", ()))
    lens = ResponsesLens(other, fields())
    assert told(STARTED, lens=lens)[0]["response"]["id"] == "resp_" + "1" * 26
