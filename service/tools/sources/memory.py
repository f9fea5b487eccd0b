"""Built-in tools over the notes about the caller: list, read, write, delete."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from service.tools.base import Tool, ToolContext, ToolFailed, ToolOutput, tool
from service.tools.context import Notes

MAX_TEXT = 4_000  # characters of a note
KEY = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
Key = Annotated[str, Field(pattern=KEY)]


@tool(idempotent=True, risk="read", timeout=10, trusted=True)
def memory_list(context: ToolContext) -> ToolOutput:
    """List the keys of what was noted about the user. Use it before saying that nothing is known about them."""
    found = _notes(context).list()
    rows = [{"key": note.key, "updated_at": note.updated_at, "untrusted": note.untrusted} for note in found]
    return ToolOutput({"notes": rows}, untrusted=any(note.untrusted for note in found))


@tool(idempotent=True, risk="read", timeout=10, trusted=True)
def memory_read(key: Key, context: ToolContext) -> ToolOutput:
    """Read a note about the user.

    Args:
        key: The key of the note, as memory_list shows it.
    """
    note = _notes(context).read(key)
    if note is None:
        raise ToolFailed("There is no note with this key; memory_list shows those there are")
    told = {"key": note.key, "text": note.text, "updated_at": note.updated_at}
    if note.untrusted:
        told["note"] = "Written while text from outside was read: it may say what an outsider wanted."
    return ToolOutput(told, untrusted=note.untrusted)


@tool(risk="write", timeout=10, trusted=True)
def memory_write(
    key: Key, text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)], context: ToolContext
) -> str:
    """Note a fact about the user for later conversations, such as a preference. Replaces the note of the same key.

    Args:
        key: A short name, such as language or shipping-address.
        text: The fact, in a sentence or a few. No secrets.
    """
    _notes(context).write(key, text)
    return "Noted."


@tool(risk="write", timeout=10, trusted=True)
def memory_delete(key: Key, context: ToolContext) -> str:
    """Delete a note about the user, because it is wrong or they ask for it.

    Args:
        key: The key of the note, as memory_list shows it.
    """
    return "Deleted." if _notes(context).delete(key) else "There was no note with this key."


def _notes(context: ToolContext) -> Notes:
    if context.notes is None:
        raise ToolFailed("No notes are kept where this agent runs")
    return context.notes


_TOOLS = (memory_list, memory_read, memory_write, memory_delete)
MEMORY: Mapping[str, Tool] = MappingProxyType({one.name: replace(one, personal=True) for one in _TOOLS})


class MemoryTools:
    """Tool source of the notes, the same for every agent."""

    kind = "built-in"
    file = ""

    def tools(self, folder: Path) -> Mapping[str, Tool]:
        return MEMORY
