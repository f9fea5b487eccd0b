"""Conversations as clients of other APIs send them: what their dialects share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from service.errors import fault
from service.text.json_schema import JsonSchema, SchemaFault
from service.web.body import pointer

MAX_TOOLS = 128  # tools of a request, and calls of a message
Text = Annotated[str, Field(max_length=400_000)]
StopText = Annotated[str, Field(min_length=1, max_length=1_000, pattern=r"\S")]
CallId = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_-]+$")]
ToolName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
EMPTY = {"type": "object", "properties": {}}  # schema of a tool without arguments


def instructions(texts: Iterable[str]) -> str | None:
    """Join what the application, and not its user, has said."""
    return "\n\n".join(text for text in texts if text.strip()) or None


def client_tools(
    offered: Sequence[dict[str, Any]], called: Iterable[str]
) -> tuple[dict[str, Any], ...] | None:
    """Return the client's tools; where none are offered, stubs of those called in the conversation.

    The Messages API refuses a conversation with calls where no tool is listed.
    """
    stubs = [{"name": name, "description": "", "input_schema": EMPTY} for name in sorted(set(called))]
    return tuple(offered or stubs) or None


def client_choice(
    mode: Literal["auto", "none", "any"], offered: Sequence[dict[str, Any]]
) -> Literal["none", "any"] | None:
    """Return the choice among the client's tools; stubs, where none are offered, are not to be called."""
    if not offered:
        return "none"
    return None if mode == "auto" else mode


def narrowed(tools: Sequence[dict[str, Any]], named: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return the tools that are named, by the pointer to each name. Raises `Invalid` for one that is not offered.

    What may not be called need not be listed, and of one tool a forced call is a call of this tool.
    """
    known = {tool["name"] for tool in tools}
    for where, name in named.items():
        if name not in known:
            raise fault(where, "is not the name of one of the `tools`")
    return [tool for tool in tools if tool["name"] in named.values()]


def checked_schema(schema: dict[str, Any], where: Sequence[str]) -> dict[str, Any]:
    """Return a schema that an answer may be checked by. Raises `Invalid` with a pointer to the part at fault."""
    try:
        JsonSchema(schema)
    except SchemaFault as wrong:
        raise fault(pointer([*where, *wrong.path]), wrong.detail) from None
    return schema
