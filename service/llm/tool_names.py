"""Names of tools towards the model, whose names hold no dot: `mail.send` is `mail__send` there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.types import Message

MAX_NAME = 64  # characters, of the Messages API


def named_for_model(name: str) -> str:
    return name.replace(".", "__")[:MAX_NAME]  # a name that the model made up may be longer


def named_by_model(name: str) -> str:
    """Inverse of `named_for_model`: no name of a tool holds `__`."""
    return name.replace("__", ".")


def tools_for_model(tools: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [
        {**tool, "name": named_for_model(tool["name"])} if "." in tool.get("name", "") else tool
        for tool in tools
    ]


def messages_for_model(messages: Sequence[Message]) -> list[Message]:
    """Return messages with their tool calls renamed; a message without one that has to be is the same object."""
    return [_message(one) for one in messages]


def _message(message: Message) -> Message:
    content = message["content"]
    if isinstance(content, str) or not any(map(_has_dot, content)):
        return message
    blocks = [{**one, "name": named_for_model(one["name"])} if _has_dot(one) else one for one in content]
    return {**message, "content": blocks}


def _has_dot(block: Mapping[str, Any]) -> bool:
    return block.get("type") == "tool_use" and "." in str(block.get("name", ""))
