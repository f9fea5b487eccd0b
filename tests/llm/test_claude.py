from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from service import errors
from service.llm.claude import ClaudeClient
from service.llm.client import ModelCall, TextDelta
from service.types import Usage
from tests.llm.conftest import MakeClaude, Offline, a_call, ask, run
from tests.llm.wire_server import (
    MESSAGE,
    Exchange,
    WireServer,
    chunk,
    end,
    error,
    head,
    silent,
    sse,
    start,
    stream,
    text_events,
    whole,
)

SPENT = "enforced_spend_limit_reached"
CALCULATOR = {
    "name": "calculator",
    "description": "Work out an arithmetic expression.",
    "input_schema": {
        "type": "object",
        "properties": {"expression": {"type": "string"}},
        "required": ["expression"],
    },
}


def close(exchange: Exchange) -> None:
    exchange.close()


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


# --- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("status", "kind", "details", "expected"),
    [
        (400, "invalid_request_error", {}, errors.ModelRejected),
        (401, "authentication_error", {}, errors.ModelKeyRefused),
        (402, "billing_error", {}, errors.ModelRejected),
        (403, "permission_error", {}, errors.ModelKeyRefused),
        (404, "not_found_error", {}, errors.ModelRejected),
        (409, "conflict_error", {}, errors.ModelUnavailable),
        (413, "request_too_large", {}, errors.ModelRejected),
        (422, "unheard_of", {}, errors.ModelRejected),
        (429, "rate_limit_error", {}, errors.ModelRateLimited),
        (429, "rate_limit_error", {"error_code": SPENT}, errors.ModelRejected),
        (429, "rate_limit_error", {"error_code": "ramp_limit_exceeded"}, errors.ModelRateLimited),
        (500, "api_error", {}, errors.ModelUnavailable),
        (503, "unheard_of", {}, errors.ModelUnavailable),
        (504, "timeout_error", {}, errors.ModelTimeout),
        (529, "overloaded_error", {}, errors.ModelUnavailable),
    ],
)
def test_refusals(
    claude: ClaudeClient,
    server: WireServer,
    streaming: bool,
    status: int,
    kind: str,
    details: dict[str, Any],
    expected: type[errors.SlipwayError],
) -> None:
    server.script = [error(status, kind, **details)]
    with pytest.raises(errors.SlipwayError) as caught:
        run(claude.create(ask(stream=streaming), a_call()))
    assert type(caught.value) is expected
    assert "UPSTREAM" not in str(caught.value.as_problem()) and caught.value.__cause__ is None
    assert caught.value.__suppress_context__  # or a log would print the upstream's words
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("retry-after: 7", 7),
        ("retry-after-ms: 2500", 3),
        ("retry-after: 9999999", 3600),
        ("retry-after: nan", None),
        ("retry-after: -4", None),
        ("retry-after: soon", None),
        ("retry-after: Thu, 01 Jan 1998 00:00:00 GMT", 1),
        ("retry-after: Fri, 31 Dec 9998 23:59:59 GMT", 3600),
        ("retry-after: Fri, 32 Dec 9998 23:59:59 GMT", None),
        ("x: y", None),
    ],
)
def test_retry_after(claude: ClaudeClient, server: WireServer, header: str, expected: int | None) -> None:
    server.script = [error(429, "rate_limit_error", f"{header}\r\n")]
    with pytest.raises(errors.ModelRateLimited) as caught:
        run(claude.create(ask(), a_call()))
    assert caught.value.retry_after == expected


@pytest.mark.parametrize(
    "body", [b"not JSON", b"[]", b"{}", b'"text"', b'{"type": "message"}', b"\xff\xfe", b"<html>busy</html>"]
)
def test_garbage(claude: ClaudeClient, server: WireServer, body: bytes) -> None:
    server.script = [whole(body)]
    with pytest.raises(errors.ModelError) as caught:
        run(claude.create(ask(), a_call()))
    assert type(caught.value) is errors.ModelError


@pytest.mark.parametrize(
    "usage",
    [{"input_tokens": "many", "output_tokens": 1}, {"input_tokens": [1]}, {"output_tokens": -5}, None, 7],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_usage_that_cannot_be_read_is_not_taken_for_reported(
    claude: ClaudeClient, server: WireServer, usage: Any, streamed: bool
) -> None:
    begin = start()
    begin["message"]["usage"] = usage
    streaming = stream([begin, *text_events("Good day."), *end()])
    server.script = [streaming if streamed else whole({**MESSAGE, "usage": usage})]
    call = a_call()
    _, reply = run(claude.create(ask(stream=streamed), call))
    assert (reply.text, reply.usage_source, reply.usage.input_tokens) == ("Good day.", "estimated", 0)
    assert (call.progress.billable, call.progress.usage) == (True, None)


def test_no_stop_reason_is_an_interruption(claude: ClaudeClient, server: WireServer) -> None:
    server.script = [whole({**MESSAGE, "stop_reason": None}), stream([start(), *text_events("a", "b")])]
    for streaming in (False, True):
        with pytest.raises(errors.ModelInterrupted):
            run(claude.create(ask(stream=streaming), a_call()))


def test_a_refusal_of_the_model_is_an_answer(claude: ClaudeClient, server: WireServer) -> None:
    server.script = [whole({**MESSAGE, "stop_reason": "refusal", "content": []})]
    _, reply = run(claude.create(ask(), a_call()))
    assert (reply.stop_reason, reply.content) == ("refusal", [])


@pytest.mark.parametrize("streaming", [False, True])
def test_no_connection(claude: ClaudeClient, server: WireServer, streaming: bool) -> None:
    server.stop()
    with pytest.raises(errors.ModelUnavailable):
        run(claude.create(ask(stream=streaming), a_call()))
    with pytest.raises(errors.ModelUnavailable):
        claude.ping()


@pytest.mark.parametrize("streaming", [False, True])
def test_silence_is_a_timeout(server: WireServer, make_claude: MakeClaude, streaming: bool) -> None:
    server.script = [silent]
    with pytest.raises(errors.ModelTimeout):
        run(make_claude(server.url, timeout=0.1).create(ask(stream=streaming), a_call()))


def test_the_call_s_deadline_is_a_timeout(claude: ClaudeClient, server: WireServer) -> None:
    server.script = [silent]
    with pytest.raises(errors.ModelTimeout):
        run(claude.create(ask(), a_call(0.1)))
    with pytest.raises(errors.ModelTimeout):
        run(claude.create(ask(), a_call(0)))
    assert len(server.requests) == 1


def test_no_free_connection_is_overload(
    server: WireServer, make_claude: MakeClaude, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.llm.claude.POOL_SECONDS", 0.05)
    claude = make_claude(server.url, max_connections=1)
    server.script = [stream([start(), *text_events("a")], then=silent)]
    first = claude.create(ask(stream=True), a_call())
    next(first)
    with pytest.raises(errors.Overloaded):
        run(claude.create(ask(), a_call()))
    first.close()
    assert run(claude.create(ask(), a_call()))[1].text == "Good day."


def test_half_a_body_is_an_interruption(claude: ClaudeClient, server: WireServer) -> None:
    def half(exchange: Exchange) -> None:
        exchange.send(head(200, 1000) + b'{"type":')
        exchange.close()

    server.script = [half]
    with pytest.raises(errors.ModelInterrupted):
        run(claude.create(ask(), a_call()))


@pytest.mark.parametrize(
    ("then", "expected"),
    [
        (close, errors.ModelInterrupted),
        (lambda x: x.send(b"zzz\r\n"), errors.ModelInterrupted),
        (lambda x: x.send(b"0\r\n\r\n"), errors.ModelInterrupted),
        (lambda x: x.send(chunk(b"data: {garbage\n\n")), errors.ModelError),
        (lambda x: x.send(chunk(b'data: {"type": "content_block_delta"}\n\n')), errors.ModelError),
        (
            lambda x: x.send(chunk(sse({"type": "error", "error": {"type": "overloaded_error"}}))),
            errors.ModelUnavailable,
        ),
        (
            lambda x: x.send(chunk(sse({"type": "error", "error": {"type": "api_error"}}))),
            errors.ModelUnavailable,
        ),
        (
            lambda x: x.send(chunk(sse({"type": "error", "error": {"type": "rate_limit_error"}}))),
            errors.ModelRateLimited,
        ),
        (lambda x: x.send(chunk(sse({"type": "error", "error": {"type": "new_error"}}))), errors.ModelError),
        (lambda x: x.send(chunk(sse({"type": "error", "error": None}))), errors.ModelError),
    ],
)
def test_a_stream_that_breaks_can_be_billed(
    claude: ClaudeClient, server: WireServer, then: Any, expected: type[errors.ModelError]
) -> None:
    server.script = [stream([start(), *text_events("one ", "two")], then)]
    call, pieces = a_call(), list[str]()
    with pytest.raises(errors.SlipwayError) as caught:
        for delta in claude.create(ask(stream=True), call):
            pieces.append(delta.text)
    assert type(caught.value) is expected
    assert pieces == ["one ", "two"]
    assert (call.progress.text, call.progress.usage) == ("one two", Usage(20, 1))


def test_a_stream_that_falls_silent(server: WireServer, make_claude: MakeClaude) -> None:
    server.script = [stream([start(), *text_events("one")], then=silent)]
    with pytest.raises(errors.ModelTimeout):
        run(make_claude(server.url, timeout=0.1).create(ask(stream=True), a_call()))


def test_connection_lost_after_the_stop_reason_is_ignored(claude: ClaudeClient, server: WireServer) -> None:
    server.script = [stream([start(), *text_events("all"), *end()], then=close)]
    assert run(claude.create(ask(stream=True), a_call()))[1].text == "all"


# --- abort --------------------------------------------------------------------------------------


def run_and_catch(
    claude: ClaudeClient, call: ModelCall, streaming: bool, first: threading.Event
) -> list[Any]:
    """What a thread of its own saw: pieces of text, then the error."""
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
        assert server.asked.acquire(timeout=5)
        call.abort()
        (seen,) = running.result(5)
    assert type(seen) is errors.RunCancelled
    assert server.hung_up.wait(5)


def test_abort_wakes_a_reader_in_mid_stream(claude: ClaudeClient, server: WireServer) -> None:
    server.script = [stream([start(), *text_events("one")], then=silent)]
    call, first = a_call(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_and_catch, claude, call, True, first)
        assert first.wait(5)
        call.abort()
        delta, failure = running.result(5)
    assert delta == TextDelta("one") and type(failure) is errors.RunCancelled
    assert server.hung_up.wait(5)
    assert (call.progress.text, call.progress.usage) == ("one", Usage(20, 1))


@pytest.mark.parametrize("count", [-1_000, 0, None, "9", 1.5, True, [1]])
def test_a_count_that_is_none_is_not_relied_on(claude: ClaudeClient, server: WireServer, count: Any) -> None:
    server.script = [whole({"input_tokens": count})]
    with pytest.raises(errors.ModelError):
        claude.count_tokens(ask(), a_call())


# --- answers that are too large, compressed, or do not end ----------------------------------------


def endless(first: bytes, piece: bytes) -> Any:
    def answer(exchange: Exchange) -> None:
        exchange.send(head(200, None, "content-type: text/event-stream\r\n") + chunk(first))
        for _ in range(400):
            exchange.send(chunk(piece))

    return answer


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_that_is_too_large_is_the_models_fault(
    claude: ClaudeClient, server: WireServer, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    for name in ("MAX_ANSWER_BYTES", "MAX_STREAM_BYTES"):
        monkeypatch.setattr(f"service.llm.client.{name}", 1_000_000)
    begin = b"".join(map(sse, [start(), *text_events("one")[:-1]])) if streamed else b"{"
    more = b": " + b"x" * 9_000 + b"\n\n" if streamed else b" " * 9_000
    server.script = [endless(begin, more)]
    call = a_call()
    with pytest.raises(errors.ModelError) as caught:
        run(claude.create(ask(stream=streamed), call))
    assert type(caught.value) is errors.ModelError and "too large" in str(caught.value)
    assert call.progress.billable and call.progress.usage == (Usage(20, 1) if streamed else None)
    assert run(claude.create(ask(), a_call()))[1].text == "Good day."


@pytest.mark.parametrize("max_tokens", [64, 2_000, 1_000_000])
def test_text_is_bounded_by_the_tokens_asked_for(
    claude: ClaudeClient, server: WireServer, max_tokens: int
) -> None:
    most = {64: 65_536, 2_000: 128_000, 1_000_000: 4 * 1024 * 1024}[max_tokens]
    pieces = ["x" * (most // 8)] * 8
    server.script = [stream([start(), *text_events(*pieces, *more), *end()]) for more in ([], ["y"])]
    asked = replace(ask(stream=True), max_tokens=max_tokens)
    assert len(run(claude.create(asked, a_call()))[1].text) == most
    with pytest.raises(errors.ModelError, match="longer") as caught:
        run(claude.create(asked, a_call()))
    assert type(caught.value) is errors.ModelError


def test_an_event_that_is_too_large_is_the_models_fault(
    claude: ClaudeClient, server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.llm.sse_data.MAX_EVENT_BYTES", 100_000)
    server.script = [endless(sse(start()), b"data: " + b"x" * 9_000 + b"\n")]
    call = a_call()
    with pytest.raises(errors.ModelError, match="event"):
        run(claude.create(ask(stream=True), call))
    assert call.progress.usage == Usage(20, 1)


def test_counts_models_and_batches_are_bounded_in_size(
    claude: ClaudeClient, server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.llm.client.MAX_ANSWER_BYTES", 1_000_000)
    server.script = [endless(b"{", b" " * 9_000)] * 3
    for asked in (
        lambda: claude.count_tokens(ask(), a_call()),
        lambda: claude.list_models(),
        lambda: claude.batch("batch_1", a_call()),
    ):
        with pytest.raises(errors.ModelError, match="too large"):
            asked()


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
def test_a_compressed_answer_is_the_models_fault(
    claude: ClaudeClient, server: WireServer, streamed: bool, coding: str
) -> None:
    server.script = [whole(b"packed", headers=f"content-encoding: {coding}\r\n")]
    call = a_call()
    with pytest.raises(errors.ModelError, match="compressed") as caught:
        run(claude.create(ask(stream=streamed), call))
    assert type(caught.value) is errors.ModelError
    assert (call.progress.billable, call.progress.usage) == (True, None)


def test_a_stream_is_over_with_its_last_event(claude: ClaudeClient, server: WireServer) -> None:
    """Whatever comes after it is no part of the answer, and nobody waits for it."""
    late = [*text_events("late", index=5), {"type": "error", "error": {"type": "overloaded_error"}}]
    server.script = [
        stream([start(), *text_events("all"), *end(), *late, *end(output_tokens=0)], then=silent)
    ]
    pieces, reply = run(claude.create(ask(stream=True), a_call(3600)))
    assert (pieces, reply.text, reply.usage) == (["all"], "all", Usage(20, 4))


def test_a_stream_whose_end_comes_apart_keeps_its_connection(
    claude: ClaudeClient, server: WireServer
) -> None:
    def later(exchange: Exchange) -> None:
        time.sleep(0.02)
        exchange.send(b"0\r\n\r\n")

    server.script = [stream([start(), *text_events("all"), *end()], then=later)] * 2
    for _ in range(2):
        assert run(claude.create(ask(stream=True), a_call()))[1].text == "all"
    assert server.connections == 1
