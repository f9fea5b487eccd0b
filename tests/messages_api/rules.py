"""Rules of the Messages API about a request's messages, as far as an agent's loop can break them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tests.messages_api.asked import Asked, Block, blocks

MAX_MARKS = 4  # blocks with `cache_control`
THINKING = ("thinking", "redacted_thinking")


def faults_of(asked: Asked, signed: dict[str, Block]) -> Iterator[str]:
    """Yield what the API would refuse. `signed`: the thinking blocks that it gave out, by signature."""
    messages = asked.messages
    roles = [message["role"] for message in messages]
    if roles[0] != "user" or any(one == other for one, other in pairwise(roles)):
        yield f"roles do not alternate from the user on: {roles}"
    for message in messages:
        yield from _content(message)
    yield from _pairs(messages)
    yield from _thinking(messages, signed)
    everything = [block for message in messages for block in blocks(message)]
    if not asked.body.get("tools") and any(
        block["type"] in ("tool_use", "tool_result") for block in everything
    ):
        yield "tool blocks without tools"
    marks = sum("cache_control" in block for block in [*everything, *asked.body.get("tools", ())])
    if marks > MAX_MARKS:
        yield f"{marks} cache marks"


def _content(message: dict[str, Any]) -> Iterator[str]:
    if not message["content"]:
        yield "an empty message"
    for block in blocks(message):
        if block["type"] == "text" and not block["text"].strip():
            yield "a blank text"
        if block["type"] == "tool_use" and not isinstance(block["input"], dict):
            yield f"arguments that are no object: {block['input']!r}"


def _pairs(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Each tool call is answered in the next message, before any text there; no id comes twice."""
    seen: set[str] = set()
    for before, message in zip([None, *messages], messages, strict=False):
        answered = [block["tool_use_id"] for block in blocks(message) if block["type"] == "tool_result"]
        asked = [block["id"] for block in blocks(before) if block["type"] == "tool_use"] if before else []
        if sorted(answered) != sorted(asked):
            yield f"calls {asked} are answered by {answered}"
        order = [block["type"] == "tool_result" for block in blocks(message)]
        if order != sorted(order, reverse=True):
            yield "text before a tool result"
        own = [block["id"] for block in blocks(message) if block["type"] == "tool_use"]
        if seen & set(own) or len(set(own)) < len(own):
            yield f"an id comes twice: {own}"
        seen |= set(own)
    if any(block["type"] == "tool_use" for block in blocks(messages[-1])):
        yield "the last message has calls without results"


def _thinking(messages: list[dict[str, Any]], signed: dict[str, Block]) -> Iterator[str]:
    for message in messages:
        for block in blocks(message):
            if block["type"] in THINKING and signed.get(signature(block)) != block:
                yield "a thinking block that this API did not write"


def signature(block: Block) -> str:
    return str(block.get("signature") or block.get("data"))
