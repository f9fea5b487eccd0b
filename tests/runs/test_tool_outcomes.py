"""Tool calls of a reply: odd or unreadable arguments, unknown tools, ids, and what goes back to the model."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.store import schema
from service.types import RunStatus
from service.wiring import Services
from tests.llm.wire_server import MESSAGE, WireServer, error, whole
from tests.runs.scripted import FOUND, SEARCH, THOUGHT, ask, bodies, call, calls, message, says

EMPTY_THOUGHT: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": "c2VhbDI="}
REDACTED: dict[str, Any] = {"type": "redacted_thinking", "data": "aGlkZGVu"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["a"],
        "a",
        None,
        7,
        {"text": 7},
        {"text": None},
        {"text": ["a"]},
        {"other": "a"},
        {"text": "a", "more": 1},
        {},
    ],
)
def test_odd_arguments_are_an_error_result_for_the_model(
    acting: Services, upstream: WireServer, arguments: Any
) -> None:
    upstream.script.append(calls(call("echo", arguments)))
    run = ask(acting)
    assert run.result is not None and run.status == "succeeded", run.error
    assert [use["ok"] for use in run.result["tools"]] == [False]
    said, results = bodies(upstream)[1]["messages"][-2:]
    assert isinstance(said["content"][0]["input"], dict)  # the API takes nothing else back
    assert results["content"][0]["is_error"] is True and results["content"][0]["content"]


@pytest.mark.parametrize("arguments", [[], "all", None])
def test_a_call_with_unreadable_arguments_is_neither_claimed_nor_made(
    acting: Services, upstream: WireServer, arguments: Any
) -> None:
    """`refund` has a default for its only parameter: called with nothing, it would pay."""
    upstream.script.append(calls(call("refund", arguments)))
    run = ask(acting)
    assert run.result is not None and [use["ok"] for use in run.result["tools"]] == [False]
    claimed = acting.infra.db.query(lambda tx: tx.rows(sa.select(schema.tool_calls)))
    assert claimed == []


def test_unknown_tool_is_an_error_result(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(calls(call("no such tool!", {})))
    assert ask(acting).status == "succeeded"
    said, results = bodies(upstream)[1]["messages"][-2:]
    assert said["content"][0]["name"] == "no_such_tool_"  # a name the API takes back
    assert results["content"][0]["is_error"] is True


def test_every_call_of_a_reply_is_answered_and_nothing_empty_goes_back(
    acting: Services, upstream: WireServer
) -> None:
    upstream.script.append(
        calls(
            THOUGHT,
            says(""),
            call("echo", {"text": "a"}, "toolu_a"),
            says(" \n"),
            REDACTED,
            EMPTY_THOUGHT,
            call("echo", {"text": "b"}, "toolu_b"),
            SEARCH,
            FOUND,
        )
    )
    assert ask(acting).status == "succeeded"
    said, results = bodies(upstream)[1]["messages"][-2:]
    assert said["content"] == [
        THOUGHT,
        call("echo", {"text": "a"}, "toolu_a"),
        REDACTED,
        EMPTY_THOUGHT,
        call("echo", {"text": "b"}, "toolu_b"),
        SEARCH,
        FOUND,
    ]
    assert [(b["type"], b["tool_use_id"], b["content"]) for b in results["content"]] == [
        ("tool_result", "toolu_a", "a"),
        ("tool_result", "toolu_b", "b"),
    ]


def test_thinking_is_sent_to_the_requested_model_under_any_reported_name(
    acting: Services, upstream: WireServer
) -> None:
    answer = {**MESSAGE, "model": "a-gateway/haiku@1", "stop_reason": "tool_use"}
    used = call("echo", {"text": "a"})
    upstream.script.append(whole({**answer, "content": [THOUGHT, used]}))
    assert ask(acting).status == "succeeded"
    assert bodies(upstream)[1]["messages"][-2]["content"] == [THOUGHT, used]


def test_thinking_that_one_model_may_not_see_is_not_lost_for_the_next(
    acting: Services, upstream: WireServer
) -> None:
    """The first model is away in the second step, answers in the third, and is sent its own thinking again."""
    used = [call("echo", {"text": "a"}, f"toolu_{n}") for n in range(2)]
    upstream.script += [
        calls(THOUGHT, used[0]),
        *[error(529, "overloaded_error")] * 3,
        calls(EMPTY_THOUGHT, used[1]),
    ]
    assert ask(acting).status == "succeeded"
    first, *_, second, third = bodies(upstream)
    assert first["model"] == third["model"] != second["model"]
    assert second["messages"][-2]["content"] == [used[0]]
    assert [message["content"] for message in third["messages"][1::2]] == [[THOUGHT, used[0]], [used[1]]]


def test_two_calls_never_share_an_id(acting: Services, upstream: WireServer) -> None:
    """Some gateways number calls from zero in each reply; claims and approvals are found by id."""
    upstream.script.append(
        calls(call("refund", {"order": "1"}, "call_0"), call("refund", {"order": "2"}, "call_0"))
    )
    upstream.script.append(
        calls(call("refund", {"order": "3"}, "call_0"), call("echo", {"text": "x"}, "a b"))
    )
    assert ask(acting).status == "succeeded"
    messages = bodies(upstream)[2]["messages"]
    used = [block for message in messages[1::2] for block in message["content"]]
    results = [block for message in messages[2::2] for block in message["content"]]
    ids = [block["id"] for block in used]
    assert len(set(ids)) == 4 and ids[0] == "call_0"
    assert [block["tool_use_id"] for block in results] == ids
    assert [block["content"] for block in results] == ["refunded 1", "refunded 2", "refunded 3", "x"]


def test_resumed_run_sends_the_same_messages(acting: Services, upstream: WireServer) -> None:
    upstream.script += [
        message(THOUGHT, says("Looking. "), SEARCH, stop="pause_turn"),
        calls(
            REDACTED,
            says(" "),
            call("refund", {"order": "1"}, "call_0"),
            call("echo", ["x"], "call_1"),
            call("echo", {"text": "x"}, "call_0"),
        ),
    ]
    run = ask(acting)

    def lost(tx: Any) -> None:
        """As if the worker had died in its last model call."""
        steps, runs = schema.steps, schema.runs
        tx.execute(sa.delete(steps).where(steps.c.run_id == run.id, steps.c.n > 3))
        row = sa.update(runs).where(runs.c.id == run.id)
        tx.execute(row.values(status=RunStatus.QUEUED, finished_at=None, result=None, worker_id=None))

    acting.infra.db.transact(lost)
    assert acting.runs.execution.take_up(run.id)
    again = acting.runs.queries.get(run.id)
    assert (again.status, again.attempt, len(upstream.requests)) == ("succeeded", 2, 4), again.error
    assert bodies(upstream)[3] == bodies(upstream)[2]
    assert again.result is not None and run.result is not None
    assert [use["ok"] for use in again.result["tools"]] == [True, False, True]
