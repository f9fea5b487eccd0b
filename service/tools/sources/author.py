"""Tool source of an agent's `tools.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

from service.tools.base import Tool
from service.tools.sources.base import SourceFault
from service.tools.sources.fresh_module import import_afresh


class AuthorTools:
    """Tool source of the functions in an agent's own `tools.py`, if present."""

    kind = "tools.py"
    file = "tools.py"

    def tools(self, folder: Path) -> Mapping[str, Tool]:
        path = folder / self.file
        return import_afresh(path, f"agent_tools.{folder.name}", _tools_in) if path.is_file() else {}


def _tools_in(module: ModuleType) -> dict[str, Tool]:
    """Return every `Tool` among the module's names. Raises `SourceFault` for two of one name."""
    tools: dict[str, Tool] = {}
    for value in vars(module).values():
        if isinstance(value, Tool) and tools.setdefault(value.name, value) is not value:
            raise SourceFault(AuthorTools.file, 1, f"two tools are called {value.name!r}: rename one")
    return tools
