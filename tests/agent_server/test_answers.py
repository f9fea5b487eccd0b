"""Answers of an agent served alone: JSON and events, tools, questions to people, structured output, failures."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.agent_server.house import Piece, asks, text_of
from tests.llm.wire_server import WireServer, end, error, start, stream
from tests.runs.scripted import bodies, call, calls, message, says, stream_of

LOOK = call("look", {"at": "it"})
LOOKS = calls(says("Let me look."), LOOK)
STREAMED = stream(
    [
        start(),
        {"type": "content_block_start", "index": 0, "content_block": {**LOOK, "input": {}}},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "input_json_delta", "partial_json": json.dumps(LOOK["input"])},
        },
        {"type": "content_block_stop", "index": 0},
        *end("tool_use"),
    ]
)


def test_answer_is_json_where_no_events_are_accepted(piece: Piece, upstream: WireServer) -> None:
    answer = piece.ask(**asks(upstream.url)).json()
    assert answer == {
        "status": "succeeded",
        "output": "Good day.",
        "structured": None,
        "stop_reason": "end_turn",
        "model": "claude-haiku-5-5",
        "sources": [],
        "tools": [],
    }
    (exchange,) = upstream.requests
    assert exchange.headers["authorization"] == "Bearer token-of-the-run"
    assert exchange.json["stream"] is False


def test_text_is_told_as_it_arrives_and_one_event_is_the_last(piece: Piece, upstream: WireServer) -> None:
    upstream.script = [stream_of("Good ", "day.")]
    events = piece.events(**asks(upstream.url))
    assert [name for name, _ in events] == ["text.delta", "text.delta", "run.completed"]
    assert text_of(events) == events[-1][1]["output"] == "Good day."


def test_history_goes_to_the_model_unchanged(piece: Piece, upstream: WireServer) -> None:
    turns = [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": [{"type": "text", "text": "One."}]},
        {"role": "user", "content": "Two?"},
    ]
    piece.ask(**asks(upstream.url, "Two?", messages=turns, max_tokens=77, effort="low"))
    (body,) = bodies(upstream)
    assert body["messages"] == turns
    assert (body["max_tokens"], body["output_config"]) == (77, {"effort": "low"})


def test_tools_of_the_folder_are_called(piece: Piece, upstream: WireServer) -> None:
    upstream.script = [STREAMED, stream_of("I saw it.")]
    events = piece.events("looker", **asks(upstream.url))
    assert [name for name, _ in events if name.startswith("tool")] == ["tool.called", "tool.finished"]
    assert events[-1][1]["tools"][0]["ok"] is True
    returned = bodies(upstream)[1]["messages"][-1]["content"][0]
    assert (returned["tool_use_id"], returned["content"]) == ("toolu_1", "seen it")


@pytest.mark.parametrize("facts", [None, {"tools": [], "untrusted": [], "words": []}])
def test_tool_that_the_user_may_not_use_is_not_offered(
    piece: Piece, upstream: WireServer, facts: dict[str, Any] | None
) -> None:
    upstream.script = [LOOKS, message(says("I could not."))]
    answer = piece.ask("looker", **asks(upstream.url, slipway=facts)).json()
    assert answer["tools"][0]["ok"] is False
    assert "tools" not in bodies(upstream)[0]


def test_answer_has_the_form_that_was_asked_for(piece: Piece, upstream: WireServer) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    upstream.script = [message(says('{"n": "one"}')), message(says('{"n": 1}'))]
    answer = piece.ask(**asks(upstream.url, output_schema=schema)).json()
    assert answer["structured"] == {"n": 1}


class TestQuestions:
    """A tool call that needs a person ends the request; the decision comes with the state."""

    def asked(self, piece: Piece, upstream: WireServer) -> dict[str, Any]:
        upstream.script = [STREAMED, stream_of("Over.")]
        events = piece.events("strict", **asks(upstream.url))
        name, asked = events[-1]
        assert (name, asked["status"]) == ("run.waiting", "waiting_approval")
        assert len(upstream.requests) == 1
        return asked  # type: ignore[no-any-return]

    def resume(self, piece: Piece, upstream: WireServer, asked: dict[str, Any], **decision: Any) -> Any:
        (question,) = asked["approvals"]
        made = {"decision": "approve", "arguments": question["arguments"], "comment": None, **decision}
        about = {name: question[name] for name in ("call_id", "name")}
        resume = {"state": asked["state"], "decisions": [{**about, **made}]}
        return piece.events("strict", **asks(upstream.url, attempt=2, resume=resume))

    def result(self, upstream: WireServer) -> str:
        return str(bodies(upstream)[-1]["messages"][-1]["content"][0]["content"])

    def test_approved_call_is_made_and_no_model_is_asked_twice(
        self, piece: Piece, upstream: WireServer
    ) -> None:
        asked = self.asked(piece, upstream)
        assert {key: asked["approvals"][0][key] for key in ("call_id", "name", "arguments")} == {
            "call_id": "toolu_1",
            "name": "look",
            "arguments": {"at": "it"},
        }
        events = self.resume(piece, upstream, asked)
        assert (events[-1][0], events[-1][1]["output"]) == ("run.completed", "Over.")
        assert self.result(upstream) == "seen it"
        assert len(upstream.requests) == 2

    def test_arguments_may_be_changed(self, piece: Piece, upstream: WireServer) -> None:
        self.resume(piece, upstream, self.asked(piece, upstream), arguments={"at": "that"})
        assert self.result(upstream) == "seen that"

    def test_denied_call_is_not_made_and_the_model_is_told_why(
        self, piece: Piece, upstream: WireServer
    ) -> None:
        events = self.resume(
            piece, upstream, self.asked(piece, upstream), decision="deny", comment="Not now."
        )
        assert events[-1][0] == "run.completed"
        assert self.result(upstream) == "A person denied this call: Not now."

    def test_second_question_brings_all_steps_before_it(self, piece: Piece, upstream: WireServer) -> None:
        asked = self.asked(piece, upstream)
        upstream.script = [STREAMED, stream_of("Over.")]
        _, again = self.resume(piece, upstream, asked)[-1]
        assert again["status"] == "waiting_approval"
        assert [step["kind"] for step in again["state"]["steps"]] == ["model", "tools", "model"]
        events = self.resume(piece, upstream, again)
        assert events[-1][1]["output"] == "Over." and len(events[-1][1]["tools"]) == 2
        assert len(upstream.requests) == 3

    def test_approved_call_that_takes_too_long_has_failed(self, piece: Piece, upstream: WireServer) -> None:
        """No second question: the tool only reads."""
        asked = self.asked(piece, upstream)
        events = self.resume(piece, upstream, asked, arguments={"at": "slow"})
        assert events[-1][0] == "run.completed"
        assert "timed out" in self.result(upstream)

    def test_decision_about_another_call_allows_nothing(self, piece: Piece, upstream: WireServer) -> None:
        asked = self.asked(piece, upstream)
        asked["approvals"][0]["call_id"] = "toolu_2"
        events = self.resume(piece, upstream, asked)
        assert events[-1][0] == "run.waiting"


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (402, "billing_error", "budget_exceeded"),
        (401, "authentication_error", "run_cancelled"),
        (400, "invalid_request_error", "model_rejected"),
        (529, "overloaded_error", "model_unavailable"),
    ],
)
def test_refusal_of_the_gateway_is_the_reason_of_the_failure(
    piece: Piece, upstream: WireServer, status: int, kind: str, code: str
) -> None:
    upstream.otherwise = error(status, kind)
    events = piece.events(**asks(upstream.url))
    assert (events[-1][0], events[-1][1]["error"]["code"]) == ("run.failed", code)
    assert "UPSTREAM" not in str(events)


def test_run_whose_deadline_is_over_asks_no_model(piece: Piece, upstream: WireServer) -> None:
    answer = piece.ask(**asks(upstream.url, deadline="2020-01-01T00:00:00Z")).json()
    assert (answer["status"], answer["error"]["code"]) == ("failed", "run_timeout")
    assert not upstream.requests
