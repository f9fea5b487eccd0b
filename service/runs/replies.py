"""Model replies as stored by a run: every tool call can be answered and sent back, a paused turn is one reply."""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence, Set
from dataclasses import replace

import orjson

from service.agents.pattern import assistant_turn
from service.llm.client import ModelReply
from service.text.sanitise import storable
from service.types import Block, Message, less_sure

_CALL_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_NOT_IN_A_NAME = re.compile(r"[^a-zA-Z0-9_.-]")
MAX_PARTS = 8  # calls over which one paused turn may be continued
MARGIN = 54  # nesting levels around arguments in a request or a row; orjson writes 254, so arguments have 200
MAX_NAME = 64  # characters of a tool's name, the limit of the Messages API


def well_formed(reply: ModelReply, taken: Set[str]) -> ModelReply:
    """Give each tool call a unique id, a name that may be sent back, and an object as its arguments.

    `taken` are the ids of the run's earlier calls: claims and approvals are found by id, and the API refuses a
    conversation in which two calls share one.
    """
    ids, unreadable = set(taken), set(reply.unreadable)
    content = []
    for block in reply.content:
        if block.get("type") == "tool_use":
            given = block.get("id")
            block = _call(block, ids)
            ids.add(block["id"])
            if given in reply.unreadable or not _is_readable(block.get("input")):
                unreadable.add(block["id"])
                block = {**block, "input": {}}
        elif block.get("type") == "text":
            block = {**block, "text": storable(str(block.get("text") or ""))}
        content.append(block)
    return replace(reply, content=content, unreadable=frozenset(unreadable & ids))


def joined(first: ModelReply, rest: ModelReply) -> ModelReply:
    """Join the reply of a paused turn and the reply of the call that continued it."""
    return replace(
        rest,
        content=[*first.content, *rest.content],
        usage=first.usage.plus(rest.usage),
        usage_source=less_sure(first.usage_source, rest.usage_source),
        unreadable=first.unreadable | rest.unreadable,
    )


def going_on(messages: Sequence[Message], reply: ModelReply) -> list[Message]:
    """Return messages that continue a paused turn; unchanged if the turn is empty, which the API refuses."""
    turn = assistant_turn(reply)
    return [*messages, turn] if turn["content"] else [*messages]


def call_ids(reply: ModelReply) -> set[str]:
    return {block["id"] for block in reply.content if block.get("type") == "tool_use"}


def _call(block: Block, taken: Set[str]) -> Block:
    call_id, name = str(block.get("id")), str(block.get("name"))
    if call_id in taken or not _CALL_ID.fullmatch(call_id):
        call_id = f"toolu_{secrets.token_hex(12)}"
    name = _NOT_IN_A_NAME.sub("_", name)[:MAX_NAME] or "_"
    return {**block, "id": call_id, "name": name}


def _is_readable(arguments: object) -> bool:
    """Return whether arguments are an object that can be stored and sent back unchanged."""
    if not isinstance(arguments, dict):
        return False
    for _ in range(MARGIN):
        arguments = [arguments]
    try:
        orjson.dumps(arguments)
    except TypeError:  # too deep, or half a surrogate pair
        return False
    return True
