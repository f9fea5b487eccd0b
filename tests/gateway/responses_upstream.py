"""Answers of the Responses API of an upstream on loopback."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from tests.gateway.upstream import MODEL
from tests.llm.wire_server import Exchange, Handler, chunk, head, whole

USAGE = {
    "input_tokens": 30,
    "input_tokens_details": {"cached_tokens": 10},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 34,
}
ARGUMENTS = '{"to": "lin"}'


def message(text: str) -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]}


def call(arguments: str) -> dict[str, Any]:
    named = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "send"}
    return {**named, "status": "completed", "arguments": arguments}


def response(output: list[Any], status: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "id": "resp_upstream",
        "object": "response",
        "created_at": 1_790_000_000,
        "status": status,
        "model": MODEL,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "error": None,
        "incomplete_details": None,
        "usage": USAGE if status != "in_progress" else None,
        "a_field_of_tomorrow": 1.50,
        **more,
    }


RESPONSE = response([message("Good day.")])


def events(pieces: Iterable[str], arguments: Iterable[str] = ()) -> list[dict[str, Any]]:
    """Return the events of a response with a text, and a call if there are arguments, in pieces."""
    pieces, arguments = list(pieces), list(arguments)
    text, given = "".join(pieces), "".join(arguments)
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": response([], "in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": {**message(""), "content": []}},
        {"type": "response.content_part.added", **place, "part": message("")["content"][0]},
    ]
    told += [{"type": "response.output_text.delta", **place, "delta": one, "logprobs": []} for one in pieces]
    told.append({"type": "response.output_text.done", **place, "text": text, "logprobs": []})
    told.append({"type": "response.content_part.done", **place, "part": message(text)["content"][0]})
    told.append({"type": "response.output_item.done", "output_index": 0, "item": message(text)})
    output: list[Any] = [message(text)]
    if arguments:
        at = {"item_id": "fc_1", "output_index": 1}
        told.append({"type": "response.output_item.added", "output_index": 1, "item": call("")})
        told += [{"type": "response.function_call_arguments.delta", **at, "delta": one} for one in arguments]
        told.append(
            {"type": "response.function_call_arguments.done", **at, "name": "send", "arguments": given}
        )
        told.append({"type": "response.output_item.done", "output_index": 1, "item": call(given)})
        output.append(call(given))
    told.append({"type": "response.completed", "response": response(output)})
    return told


def sse(told: Iterable[dict[str, Any]]) -> bytes:
    numbered = [{**one, "sequence_number": number} for number, one in enumerate(told)]
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (one["type"].encode(), json.dumps(one).encode()) for one in numbered
    )


def streamed(
    told: Iterable[dict[str, Any]], then: Callable[[Exchange], None] | None = None, size: int = 1_000_000
) -> Handler:
    """A handler: events in chunks of `size` bytes; `then` instead of their proper end."""
    data = sse(told)

    def answer(exchange: Exchange) -> None:
        exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
        for at in range(0, len(data), size):
            exchange.send(chunk(data[at : at + size]))
        if then is None:
            exchange.send(b"0\r\n\r\n")
        else:
            then(exchange)

    return answer


def answers(exchange: Exchange) -> None:
    """A handler: the answer, as it was asked for."""
    handler = streamed(events(["Good ", "day."])) if exchange.json.get("stream") else whole(RESPONSE)
    handler(exchange)
