"""Conversations as clients of other APIs send them: what their dialects share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

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


def checked_schema(schema: dict[str, Any], where: Sequence[str]) -> dict[str, Any]:
    """Return a schema that an answer may be checked by. Raises `Invalid` with a pointer to the part at fault."""
    try:
        JsonSchema(schema)
    except SchemaFault as wrong:
        raise fault(pointer([*where, *wrong.path]), wrong.detail) from None
    return schema
