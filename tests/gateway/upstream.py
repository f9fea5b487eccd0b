"""An upstream in OpenAI's dialect on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from tests.llm.wire_server import Exchange, Handler, chunk, head, whole

MODEL = "gpt-5.4-mini"
USAGE = {
    "prompt_tokens": 30,
    "completion_tokens": 4,
    "total_tokens": 34,
    "prompt_tokens_details": {"cached_tokens": 10},
}
COMPLETION: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": MODEL,
    "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "Good day."}, "finish_reason": "stop"}
    ],
    "usage": USAGE,
    "a_field_of_tomorrow": 1.50,
}
# 20 in at 750, 10 read at 75, 4 out at 4,500 nano-dollars
COST = 20 * 750 + 10 * 75 + 4 * 4_500


def part(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {**COMPLETION, "object": "chat.completion.chunk", "choices": [choice], "usage": None}


PARTS = [part({"role": "assistant", "content": "Good "}), part({"content": "day."}), part({}, "stop")]
LAST: dict[str, Any] = {**COMPLETION, "object": "chat.completion.chunk", "choices": []}


def streamed(
    parts: Iterable[dict[str, Any]],
    then: Callable[[Exchange], None] | None = None,
    size: int = 1_000_000,
) -> Handler:
    """A handler: chunks, their usage where it was asked for, `[DONE]`; `then` instead of these two."""

    def answer(exchange: Exchange) -> None:
        sent = [*parts]
        if then is None and (exchange.json.get("stream_options") or {}).get("include_usage"):
            sent.append(LAST)
        data = b"".join(b"data: %b\n\n" % json.dumps(one).encode() for one in sent)
        data += b"data: [DONE]\n\n" if then is None else b""
        exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
        for at in range(0, len(data), size):
            exchange.send(chunk(data[at : at + size]))
        if then is None:
            exchange.send(b"0\r\n\r\n")
        else:
            then(exchange)

    return answer


def chat(exchange: Exchange) -> None:
    """A handler: the answer, as it was asked for."""
    handler = streamed(PARTS) if exchange.json.get("stream") else whole(COMPLETION)
    handler(exchange)


def refusal(status: int, code: str | None = None, headers: str = "") -> Handler:
    error = {"message": "UPSTREAM WORDS", "type": "some_error", "param": None, "code": code}
    return whole({"error": error}, status, headers)
