"""Prompt caching: put `cache_control` marks into a request, so that the provider reads repeated prefixes at a discount.

Writing a marked prefix costs a quarter more and reading it saves nine tenths or more, so marks stand only where a
prefix recurs: after the tools and the first system block, which is the agent's own (every run of the agent), after the
history (the session's next turn), after the newest tool results (the run's next step). Lifetime: five minutes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from service.llm.client import ModelRequest
from service.types import Block, Message

# The provider caches no prefix below 1,024 tokens (4,096 for some models) and ignores a mark there, free of charge.
# A token is at least three bytes of ordinary text, so below this size a mark has no effect.
LEAST_BYTES = 3 * 1024
MARK = {"type": "ephemeral"}
MARKABLE = frozenset(
    {"text", "image", "document", "tool_use", "tool_result", "search_result"}
)  # thinking blocks cannot be marked


def marked(request: ModelRequest) -> ModelRequest:
    """Return the request with at most three marks. A request that has marks already is returned unchanged."""
    system = _blocks(request.system)
    if any("cache_control" in block for block in _every_block(request, system)):
        return request
    size = _bytes(request.tools)
    tools, marked_system = request.tools, system
    if size + _bytes(system[:1]) >= LEAST_BYTES:
        if system:
            marked_system = [_mark(system[0]), *system[1:]]
        else:
            tools = [*tools[:-1], {**tools[-1], "cache_control": MARK}]
    messages = request.messages
    if (
        request.may_call_tools and not request.must_call_tool
    ):  # else `tool_choice` differs from earlier steps, and no cached message matches
        messages = _marked_messages(messages, size + _bytes(system))
    unchanged = marked_system is system
    if unchanged and tools is request.tools and messages is request.messages:
        return request
    return replace(
        request, system=request.system if unchanged else marked_system, tools=tools, messages=messages
    )


def _marked_messages(messages: Sequence[Message], before: int) -> Sequence[Message]:
    """Mark the end of the history and the point from which the run's own conversation continues."""
    marks = [index for index in _ends(messages) if before + _bytes(messages[: index + 1]) >= LEAST_BYTES]
    if not marks:
        return messages
    return [_marked(message) if index in marks else message for index, message in enumerate(messages)]


def _ends(messages: Sequence[Message]) -> list[int]:
    """Find the indexes of the messages that end a recurring prefix."""
    last = len(messages) - 1
    turn = last
    while turn > 0 and not _is_question(messages[turn]):
        turn -= 1
    ends = [turn - 1] if turn > 0 else []
    return [*ends, last] if last > turn else ends


def _is_question(message: Message) -> bool:
    """Return whether a message is the user's own and not tool results."""
    content = message["content"]
    return message["role"] == "user" and (
        isinstance(content, str) or not any(block.get("type") == "tool_result" for block in content)
    )


def _blocks(content: str | Sequence[Block]) -> list[Block]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return list(content)


def _marked(message: Message) -> Message:
    blocks = _blocks(message["content"])
    for index in range(len(blocks) - 1, -1, -1):
        if _markable(blocks[index]):
            blocks[index] = _mark(blocks[index])
            return {**message, "content": blocks}
    return message


def _markable(block: Block) -> bool:
    return block.get("type") in MARKABLE and (block["type"] != "text" or bool(block["text"].strip()))


def _mark(block: Block) -> Block:
    return {**block, "cache_control": MARK}


def _every_block(request: ModelRequest, system: list[Block]) -> list[Mapping[str, Any]]:
    """Collect everything that can carry a mark."""
    contents = [message["content"] for message in request.messages if not isinstance(message["content"], str)]
    return [*request.tools, *system, *(block for content in contents for block in content)]


def _bytes(sent: object) -> int:
    try:
        return len(orjson.dumps(sent))
    except TypeError:  # a lone surrogate; the client refuses it with a better message
        return 0
