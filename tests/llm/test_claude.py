from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service import errors
from service.llm.claude import ClaudeClient
from service.llm.client import ModelCall, TextDelta
from service.types import Usage
from tests.llm.conftest import MakeClaude, Offline, a_call, ask, run
from tests.llm.wire_server import (
    WireServer,
    silent,
    start,
    stream,
    text_events,
    whole,
)

CALCULATOR = {
    "name": "calculator",
    "description": "Work out an arithmetic expression.",
    "input_schema": {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
    },
}


# --- over the offline model ---------------------------------------------------------------------


def test_a_whole_answer(offline: Offline, make_claude: MakeClaude) -> None:
    pieces, reply = run(make_claude(offline.url).create(ask("What is the capital of France?"), a_call()))
    assert pieces == []
    assert reply.text and reply.stop_reason == "end_turn" and reply.request_id
    assert reply.usage.input_tokens > 0 and reply.usage.output_tokens > 0 and reply.ms > 0


def test_a_streamed_answer_says_the_same(offline: Offline, make_claude: MakeClaude) -> None:
    claude = make_claude(offline.url)
    call = a_call()
    pieces, streamed = run(claude.create(ask("What is the capital of France?", stream=True), call))
    _, whole_one = run(claude.create(ask("What is the capital of France?"), a_call()))
    assert len(pieces) > 1 and "".join(pieces) == streamed.text == whole_one.text == call.progress.text
    assert (streamed.content, streamed.usage) == (whole_one.content, whole_one.usage)
    assert call.progress.usage == streamed.usage


@pytest.mark.parametrize("streaming", [False, True])
def test_a_tool_call(offline: Offline, make_claude: MakeClaude, streaming: bool) -> None:
    request = ask("What is 12 * (3 + 4)?", tools=[CALCULATOR], stream=streaming)
    _, reply = run(make_claude(offline.url).create(request, a_call()))
    assert reply.stop_reason == "tool_use"
    assert [use["name"] for use in reply.tool_uses] == ["calculator"]
    assert isinstance(reply.tool_uses[0]["input"]["expression"], str)


def test_counting_listing_and_pinging(offline: Offline, make_claude: MakeClaude) -> None:
    claude = make_claude(offline.url)
    few = claude.count_tokens(ask("Hello"), a_call())
    assert 0 < few < claude.count_tokens(ask("Hello, " * 100), a_call())
    assert all(model["id"] for model in claude.list_models())
    claude.ping()


def test_a_structured_answer(offline: Offline, make_claude: MakeClaude) -> None:
    schema = {
        "type": "object",
        "properties": {"category": {"type": "string", "enum": ["billing", "technical"]}},
        "required": ["category"],
        "additionalProperties": False,
    }
    _, reply = run(make_claude(offline.url).create(ask("My invoice is wrong", json_schema=schema), a_call()))
    assert '"category"' in reply.text


def test_closing_the_generator_stops_the_upstream_call(offline: Offline, make_claude: MakeClaude) -> None:
    before = offline.stats()["closed_early"]
    offline.control(token_ms=50)
    answering = make_claude(offline.url).create(ask("Tell me about tides", stream=True), a_call())
    next(answering)
    answering.close()
    for _ in range(200):
        if offline.stats()["closed_early"] == before + 1:
            return
        threading.Event().wait(0.02)
    pytest.fail("the offline model still thinks somebody listens")


def test_64_threads_share_one_client(offline: Offline, make_claude: MakeClaude) -> None:
    claude = make_claude(offline.url, max_connections=64)

    def one(number: int) -> bool:
        question = f"Repeat: number {number}"
        _, reply = run(claude.create(ask(question, stream=bool(number % 2)), a_call()))
        _, again = run(claude.create(ask(question), a_call()))
        return reply.text == again.text

    with ThreadPoolExecutor(64) as pool:
        assert all(pool.map(one, range(256)))


# --- what is sent -------------------------------------------------------------------------------


def test_request_body(claude: ClaudeClient, server: WireServer) -> None:
    schema = {"type": "object"}
    request = ask(system="Be kind.", tools=[CALCULATOR], effort="low", json_schema=schema, user_id="usr_1")
    run(claude.create(request, a_call()))
    assert server.requests[0].json == {
        "model": "claude-haiku-5-5",
        "messages": [{"role": "user", "content": "Hello"}],
        "max_tokens": 200,
        "stream": False,
        "system": "Be kind.",
        "tools": [CALCULATOR],
        "metadata": {"user_id": "usr_1"},
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": schema}},
    }
    assert server.requests[0].headers["authorization"] == "Bearer offline"


def test_nothing_unsaid_is_sent(claude: ClaudeClient, server: WireServer) -> None:
    run(claude.create(ask(), a_call()))
    assert set(server.requests[0].json) == {"model", "messages", "max_tokens", "stream"}


def test_unencodable_request_is_rejected_unsent(claude: ClaudeClient, server: WireServer) -> None:
    with pytest.raises(errors.ModelRejected):
        run(claude.create(ask("half a surrogate: \ud800"), a_call()))
    assert server.requests == []


# --- abort --------------------------------------------------------------------------------------


def run_and_catch(
    claude: ClaudeClient, call: ModelCall, streaming: bool, first: threading.Event
) -> list[Any]:
    """Run in a thread of its own; collect the pieces of text, then the error."""
    seen: list[Any] = []
    try:
        for delta in claude.create(ask(stream=streaming), call):
            seen.append(delta)
            first.set()
    except errors.SlipwayError as error:
        seen.append(error)
    return seen


@pytest.mark.parametrize("streaming", [False, True])
def test_abort_wakes_a_wait_for_the_first_byte(
    claude: ClaudeClient, server: WireServer, streaming: bool
) -> None:
    server.script = [silent]
    call = a_call()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_and_catch, claude, call, streaming, threading.Event())
        assert server.asked.acquire(timeout=30)
        call.abort()
        (seen,) = running.result(30)
    assert type(seen) is errors.RunCancelled
    assert server.hung_up.wait(30)


def test_abort_wakes_a_reader_in_mid_stream(claude: ClaudeClient, server: WireServer) -> None:
    server.script = [stream([start(), *text_events("one")], then=silent)]
    call, first = a_call(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_and_catch, claude, call, True, first)
        assert first.wait(30)
        call.abort()
        delta, failure = running.result(30)
    assert delta == TextDelta("one") and type(failure) is errors.RunCancelled
    assert server.hung_up.wait(30)
    assert (call.progress.text, call.progress.usage) == ("one", Usage(20, 1))


@pytest.mark.parametrize("count", [-1_000, 0, None, "9", 1.5, True, [1]])
def test_a_count_that_is_none_is_not_relied_on(claude: ClaudeClient, server: WireServer, count: Any) -> None:
    server.script = [whole({"input_tokens": count})]
    with pytest.raises(errors.ModelError):
        claude.count_tokens(ask(), a_call())
