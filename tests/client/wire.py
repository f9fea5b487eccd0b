"""Answers of a scripted server, for what a well-behaved one cannot be asked to do: handlers of `WireServer`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.llm.wire_server import Exchange, Handler, WireServer, chunk, head, whole

RUN: dict[str, Any] = {
    "run_id": "run_1",
    "session_id": None,
    "agent": "assistant",
    "agent_version": "1",
    "user_id": "usr_1",
    "door": "stream",
    "status": "succeeded",
    "input": "?",
    "output": "Good day.",
    "structured": None,
    "stop_reason": "end_turn",
    "model": "m",
    "tier": "simple",
    "steps": 1,
    "tools": [],
    "sources": [],
    "usage": {
        "input_tokens": 1,
        "output_tokens": 1,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cost_usd": "0.000001",
    },
    "cache": "miss",
    "latency_ms": 1,
    "created_at": "2026-11-30T08:00:00.000Z",
    "finished_at": "2026-11-30T08:00:01.000Z",
}


def problem(status: int, code: str, retry_after: int | None = None, **more: Any) -> Handler:
    headers = "" if retry_after is None else f"retry-after: {retry_after}\r\n"
    body = {"status": status, "code": code, "detail": "As told.", "title": "T", "request_id": "req_1", **more}
    return whole(body, status, headers)


def event(seq: int, kind: str, /, **data: Any) -> bytes:
    return f"id: run_1:{seq}\nevent: {kind}\ndata: {json.dumps(data)}\n\n".encode()


def text(seq: int, piece: str) -> bytes:
    return event(seq, "text.delta", text=piece)


def last(seq: int, **changes: Any) -> bytes:
    return event(seq, "run.completed", **{**RUN, **changes})


RECONNECT = b'retry: 1000\nevent: reconnect\ndata: {"last_seq": 1}\n\n'


def events(*parts: bytes, cut: bool = False) -> Handler:
    """Send the parts of an event stream; `cut`: then close the connection without its proper end."""

    def answer(exchange: Exchange) -> None:
        exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
        for part in parts:
            exchange.send(chunk(part))
        exchange.close() if cut else exchange.send(b"0\r\n\r\n")

    return answer


@contextmanager
def scripted(*script: Handler) -> Iterator[WireServer]:
    """A server that answers in turn, then with 418, which nothing retries."""
    server = WireServer(problem(418, "unscripted"))
    server.script = list(script)
    try:
        yield server
    finally:
        server.stop()


def paths(server: WireServer) -> list[str]:
    return [exchange.head.split(b" ", 2)[1].decode() for exchange in server.requests]


def sent(server: WireServer, name: str) -> list[str | None]:
    """The header of each request."""
    return [exchange.headers.get(name) for exchange in server.requests]
