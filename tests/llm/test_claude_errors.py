"""Errors of a model call: refusals, time-outs, cut and invalid answers, and whether they are billed."""

from __future__ import annotations

from typing import Any

import pytest

from service import errors
from service.llm.claude import ClaudeClient
from service.types import Usage
from tests.llm.conftest import MakeClaude, a_call, ask, run
from tests.llm.wire_server import (
    MESSAGE,
    Exchange,
    WireServer,
    chunk,
    close,
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
        (413, "request_too_large", {}, errors.PromptTooLong),
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
    monkeypatch.setattr("service.llm.messages_client.POOL_SECONDS", 0.05)
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


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "prompt is too long: 210000 tokens > 200000 maximum", errors.PromptTooLong),
        (400, "input length and `max_tokens` exceed context limit: 19 + 2 > 20", errors.PromptTooLong),
        (400, "Input is too long for requested model.", errors.PromptTooLong),
        (400, "messages.0.content: the text is too long", errors.ModelRejected),
        (400, ["prompt is too long"], errors.ModelRejected),
        (500, "prompt is too long", errors.ModelUnavailable),
    ],
)
def test_prompt_that_is_too_long_is_known_by_the_apis_words(
    claude: ClaudeClient,
    server: WireServer,
    streaming: bool,
    status: int,
    message: Any,
    expected: type[errors.SlipwayError],
) -> None:
    fault = {"type": "invalid_request_error" if status == 400 else "api_error", "message": message}
    server.script = [whole({"type": "error", "error": fault}, status)]
    with pytest.raises(errors.SlipwayError) as caught:
        run(claude.create(ask(stream=streaming), a_call()))
    assert type(caught.value) is expected and "200000" not in str(caught.value.as_problem())
