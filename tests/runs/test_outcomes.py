"""What comes of a run, by what the model answers: a clear end each time, and a history the model can be sent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import schema
from service.types import Event, RunStatus
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import MESSAGE, WireServer, chunk, error, head, sse, start, text_events, whole
from tests.runs.inside import SINGLE
from tests.runs.scripted import (
    ask,
    call,
    calls,
    holds,
    kept,
    message,
    says,
    services,
    stream_of,
    tell,
    text_of,
)

THOUGHT: dict[str, Any] = {"type": "thinking", "thinking": "Hm.", "signature": "c2VhbA=="}
EMPTY_THOUGHT: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": "c2VhbDI="}
REDACTED: dict[str, Any] = {"type": "redacted_thinking", "data": "aGlkZGVu"}
SEARCH: dict[str, Any] = {
    "type": "server_tool_use",
    "id": "srvtoolu_1",
    "name": "web_search",
    "input": {"query": "x"},
}
FOUND: dict[str, Any] = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}


def bodies(upstream: WireServer) -> list[dict[str, Any]]:
    return [exchange.json for exchange in upstream.requests]


def refused(run: Any) -> str:
    return f"{run.status}: {run.error and run.error['code']}"


# --- the limit of steps -------------------------------------------------------------------------------


def test_the_last_step_may_call_no_tools(acting: Services, upstream: WireServer) -> None:
    upstream.script += [calls(call("echo", {"text": "a"}, f"toolu_{n}")) for n in range(2)]
    assert ask(acting).status == "succeeded"
    asked = bodies(upstream)
    assert [body.get("tool_choice") for body in asked] == [None, None, {"type": "none"}]
    assert all(len(body["tools"]) == 3 for body in asked)  # they stay listed: the history names them


def test_a_model_that_calls_tools_to_the_end_has_met_the_limit(
    acting: Services, upstream: WireServer
) -> None:
    upstream.script += [
        calls(says("Let me look."), call("echo", {"text": "a"}, f"toolu_{n}")) for n in range(3)
    ]
    run = ask(acting)
    assert refused(run) == "failed: run_limit"
    assert (len(upstream.requests), holds(acting)) == (3, 0)
    assert run.result is not None and run.result["stop_reason"] is None and len(run.result["tools"]) == 2


# --- why the model stopped ----------------------------------------------------------------------------


def test_refusal_fails_the_run_and_keeps_its_text(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(stream_of("I would ", "rather not.", stop="refusal"))
    last = tell(acting)[-1]
    assert (last.name, last.data["error"]["code"]) == (Event.RUN_FAILED, "model_refused")
    assert (last.data["output"], last.data["error"]["status"]) == ("I would rather not.", 502)
    assert last.data["usage"]["output_tokens"] > 0 and holds(acting) == 0


@pytest.mark.parametrize("stop", ["max_tokens", "model_context_window_exceeded"])
def test_an_answer_that_was_cut_says_so(acting: Services, upstream: WireServer, stop: str) -> None:
    upstream.script.append(message(says("It begins"), stop=stop))
    run = ask(acting)
    assert run.result is not None and run.status == "succeeded"
    assert (run.result["output"], run.result["stop_reason"]) == ("It begins", stop)


def test_truncated_answer_is_not_cached(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    upstream.script.append(message(says("It begins"), stop="max_tokens"))
    with services(tmp_path, redis_server.url, upstream, f"{SINGLE}cache: {{ttl_seconds: 600}}\n") as wired:
        told = [ask(wired, cache="default").result for _ in range(3)]
    assert [one and one["output"] for one in told] == ["It begins", "Good day.", "Good day."]
    assert [one and one["cache"] for one in told] == ["miss", "miss", "hit"]


@pytest.mark.parametrize("stop", ["tool_use", "something_new", "compaction"])
def test_a_stop_that_makes_no_answer_is_an_error_of_the_model(
    acting: Services, upstream: WireServer, stop: str
) -> None:
    upstream.script.append(message(says("Well."), stop=stop))
    assert refused(ask(acting)) == "failed: model_error"
    assert holds(acting) == 0


@pytest.mark.parametrize("stop", ["max_tokens", "end_turn", "refusal"])
def test_a_call_of_an_answer_that_stopped_for_another_reason_is_never_made(
    acting: Services, upstream: WireServer, stop: str
) -> None:
    upstream.script.append(message(says("Now."), call("refund", {}), stop=stop))
    run = ask(acting)
    assert run.result is not None and run.result["tools"] == []
    assert len(upstream.requests) == 1 and [row["kind"] for row in kept(acting, run)][:1] == ["model"]


@pytest.mark.parametrize("spec", [None, SINGLE], ids=["react", "single"])
def test_paused_turn_continues_with_the_unchanged_reply(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, spec: str | None
) -> None:
    paused = [THOUGHT, says("Looking. "), SEARCH, FOUND]
    upstream.script += [message(*paused, stop="pause_turn"), message(says("Found."))]
    with services(tmp_path, redis_server.url, upstream, **({"spec": spec} if spec else {})) as wired:
        run = ask(wired)
        rows = kept(wired, run)
    assert run.result is not None and run.result["output"] == "Looking. Found."
    first, second = bodies(upstream)
    assert second["messages"] == [*first["messages"], {"role": "assistant", "content": paused}]
    assert (run.result["steps"], len(rows)) == (2, 2) and run.cost_nano == sum(
        row["cost_nano"] for row in rows
    )


@pytest.mark.parametrize("content", [[], [says(" ")]])
def test_a_turn_that_paused_with_nothing_said_is_asked_for_again(
    acting: Services, upstream: WireServer, content: list[dict[str, Any]]
) -> None:
    upstream.script += [message(*content, stop="pause_turn"), message(says("Found."))]
    run = ask(acting)
    assert run.status == "succeeded" and run.result is not None, run.error
    assert run.result["output"].strip() == "Found."
    first, second = bodies(upstream)
    assert second["messages"] == first["messages"]


def test_a_turn_that_pauses_without_end_meets_a_limit(acting: Services, upstream: WireServer) -> None:
    upstream.script += [message(says("Hm. "), stop="pause_turn")] * 20
    assert refused(ask(acting)) == "failed: run_limit"
    assert (len(upstream.requests), holds(acting)) == (8, 0)


def test_interrupted_run_keeps_its_text(acting: Services, upstream: WireServer) -> None:
    def breaks_off(exchange: Any) -> None:
        exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
        for event in [start(), *text_events("Half an ", "answer")]:
            exchange.send(chunk(sse(event)))
        exchange.close()

    upstream.script.append(breaks_off)
    last = tell(acting)[-1]
    assert (last.name, last.data["output"]) == (Event.RUN_FAILED, "Half an answer")


# --- arguments ----------------------------------------------------------------------------------------


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


# --- what goes back to the model ------------------------------------------------------------------------


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


def test_streamed_text_is_sanitised_like_the_output(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(stream_of("nul \0 and ", "more"))
    events = tell(acting)
    assert text_of(events) == "nul \ufffd and more" == events[-1].data["output"]
