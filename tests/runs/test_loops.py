"""Loops of tool calls: the model is told, answers without tools, and the result names the repeated calls."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.types import Run
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs.scripted import REACT, ask, bodies, call, calls, holds, message, says, services

SPEC = REACT.replace("steps: 3", "steps: 8") + "cache: {ttl_seconds: 600}\n"


@pytest.fixture
def looping(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Iterator[Services]:
    """An agent with eight steps, whose answers are cached."""
    spec = SPEC.replace("tools: [echo, refund, odd]", "tools: [echo]")
    with services(tmp_path, redis_server.url, upstream, spec) as wired:
        yield wired


def script(upstream: WireServer, *texts: str) -> None:
    upstream.script += [calls(call("echo", {"text": text}, f"toolu_{n}")) for n, text in enumerate(texts)]


def result(run: Run) -> dict[str, object]:
    assert run.status == "succeeded" and run.result is not None, run.error
    return run.result


def test_third_equal_call_in_a_row_is_the_last(looping: Services, upstream: WireServer) -> None:
    script(upstream, "x", "a", "a", "a", "a")
    upstream.script[4:] = [message(says("It is a."))]
    told = result(ask(looping))
    assert (told["output"], told["stop_reason"], told["repeated_calls"]) == ("It is a.", "end_turn", ["echo"])
    asked = bodies(upstream)
    assert [body.get("tool_choice") for body in asked] == [None] * 4 + [{"type": "none"}]
    kinds = [block["type"] for block in asked[-1]["messages"][-1]["content"]]
    notice = asked[-1]["messages"][-1]["content"][-1]["text"]
    assert kinds == ["tool_result", "text"] and "3 times in a row" in notice and "echo" in notice


def test_pair_that_alternates_is_stopped_after_three_rounds(looping: Services, upstream: WireServer) -> None:
    script(upstream, *"ababab")
    assert result(ask(looping))["repeated_calls"] == ["echo"]
    assert len(upstream.requests) == 7


def test_calls_that_make_progress_are_not_stopped(looping: Services, upstream: WireServer) -> None:
    script(upstream, *"aabbaac")
    assert "repeated_calls" not in result(ask(looping))
    assert len(upstream.requests) == 8


def test_loop_without_an_answer_says_so(looping: Services, upstream: WireServer) -> None:
    script(upstream, *"aaaa")
    run = ask(looping)
    assert run.status == "failed" and run.error is not None
    assert (run.error["code"], holds(looping)) == ("run_limit", 0)
    assert "same tool calls 3 times" in run.error["detail"] and len(upstream.requests) == 4


def test_answer_out_of_a_loop_is_not_cached(looping: Services, upstream: WireServer) -> None:
    script(upstream, *"aaa")
    first = result(ask(looping, cache="default"))
    again = result(ask(looping, cache="default"))
    assert "repeated_calls" in first and (again["cache"], "repeated_calls" in again) == ("miss", False)
    assert result(ask(looping, cache="default"))["cache"] == "hit"
