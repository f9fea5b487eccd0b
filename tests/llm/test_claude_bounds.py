"""Answers that are too large, compressed, or do not end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest

from service import errors
from service.llm.claude import ClaudeClient
from service.types import Usage
from tests.llm.conftest import a_call, ask, run
from tests.llm.wire_server import (
    Exchange,
    WireServer,
    chunk,
    end,
    head,
    silent,
    sse,
    start,
    stream,
    text_events,
    whole,
)


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


@pytest.mark.parametrize("ending", ["never", "broken off"])
def test_an_error_is_told_by_its_status_whatever_its_body(
    claude: ClaudeClient, server: WireServer, ending: str
) -> None:
    """It is refused, so nothing is billed for it, and tried again as the status says."""

    def refuses(exchange: Exchange) -> None:
        exchange.send(head(429, None, "content-type: application/json\r\nretry-after: 7\r\n"))
        for _ in range(4_000 if ending == "never" else 1):
            exchange.send(chunk(b"x" * 9_000))
        exchange.close()

    server.script = [refuses]
    call = a_call()
    with pytest.raises(errors.ModelRateLimited) as caught:
        run(claude.create(ask(stream=True), call))
    assert caught.value.retry_after == 7 and not call.progress.billable
    assert len(server.requests) == 1 and run(claude.create(ask(), a_call()))[1].text == "Good day."


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
    """Ignore bytes after the last event, without waiting for them."""
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
