"""Protocol of a tool source, and the merge of several sources into one namespace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from service.tools.base import Tool


class SourceFault(Exception):
    """Raised when a source cannot offer its tools: `file` and `line` in the agent's folder, 0 for the whole file."""

    def __init__(self, file: str, line: int, detail: str) -> None:
        super().__init__(detail)
        self.file = file
        self.line = line
        self.detail = detail


class ToolSource(Protocol):
    """Source of tools.

    `kind` names it in messages to authors, such as `built-in`; `file` is the file of an agent's folder that declares
    its tools, empty for none.
    """

    kind: str
    file: str

    def tools(self, folder: Path) -> Mapping[str, Tool]:
        """Return the tools that the agent in `folder` may list, by name. Raises `SourceFault`."""


def tools_of(sources: Iterable[ToolSource], folder: Path) -> dict[str, Tool]:
    """Merge the tools of all sources by name. Raises `SourceFault` if two sources use a name for different tools."""
    merged: dict[str, Tool] = {}
    kinds: dict[str, str] = {}
    for source in sources:
        for name, tool in source.tools(folder).items():
            if merged.setdefault(name, tool) is not tool:
                detail = f"{name!r} is the name of a {kinds[name]} tool: choose another"
                raise SourceFault(source.file, 0, detail)
            kinds.setdefault(name, source.kind)
    return merged
