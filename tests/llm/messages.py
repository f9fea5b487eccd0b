"""Messages built from stream events."""

from __future__ import annotations

import json
from typing import Any

import orjson

from service.llm.client import ModelReply
from service.llm.message_builder import MessageBuilder
from tests.llm.wire_server import MESSAGE, end, start


def answer_of(*events: dict[str, Any]) -> MessageBuilder:
    answer = MessageBuilder()
    for event in events:
        answer.feed(orjson.dumps(event))
    return answer


def block(index: int, begin: dict[str, Any], *deltas: dict[str, Any]) -> list[dict[str, Any]]:
    middle = [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
    return [
        {"type": "content_block_start", "index": index, "content_block": begin},
        *middle,
        {"type": "content_block_stop", "index": index},
    ]


def content(*events: dict[str, Any], stop_reason: str = "end_turn") -> list[dict[str, Any]]:
    return answer_of(start(), *events, *end(stop_reason)).reply("req_1", 1.0).content


def call_of(*pieces: str, index: int = 1, **fields: Any) -> list[dict[str, Any]]:
    use = {"type": "tool_use", "id": "t1", "name": "pay", "input": {}, **fields}
    return block(index, use, *({"type": "input_json_delta", "partial_json": piece} for piece in pieces))


def reply_of(*events: dict[str, Any], stop_reason: str = "tool_use") -> ModelReply:
    return answer_of(start(), *events, *end(stop_reason)).reply("req_1", 1.0)


def whole_reply(content: list[Any], **fields: Any) -> ModelReply:
    answer = MessageBuilder("asked")
    answer.take(json.dumps({**MESSAGE, "content": content, "stop_reason": "tool_use", **fields}).encode())
    return answer.reply(None, 0.0)


DEEP = "[" * 300 + "]" * 300


def delta(usage: Any) -> dict[str, Any]:
    return {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": usage}
