"""Outcomes of runs by the model's stop reason: one clear end, and the text so far."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from service.types import Event
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer, chunk, head, sse, start, text_events
from tests.runs.inside import SINGLE
from tests.runs.scripted import (
    FOUND,
    SEARCH,
    THOUGHT,
    ask,
    bodies,
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


def test_streamed_text_is_sanitised_like_the_output(acting: Services, upstream: WireServer) -> None:
    upstream.script.append(stream_of("nul \0 and ", "more"))
    events = tell(acting)
    assert text_of(events) == "nul \ufffd and more" == events[-1].data["output"]
