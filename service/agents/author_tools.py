"""Reads an agent's `tools.py`: the one place where an author's code is run at start."""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from types import ModuleType

from service.tools import BadTool, Tool


class ToolsFault(Exception):
    """`tools.py` cannot be used; `line` is where it went wrong, as far as is known."""

    def __init__(self, line: int, detail: str) -> None:
        super().__init__(detail)
        self.line = line
        self.detail = detail


def import_tools(path: Path, agent: str) -> dict[str, Tool]:
    """Every `Tool` among the names of the module at `path`. Raises `ToolsFault`."""
    module = ModuleType(f"agent_tools.{agent}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pydantic look their module up there
    try:
        # compiled from the bytes as they are: a .pyc beside the source could be older than its second
        exec(compile(path.read_bytes(), str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ToolsFault(_line(error, path), _detail(error)) from None
    tools: dict[str, Tool] = {}
    for value in vars(module).values():
        if isinstance(value, Tool) and tools.setdefault(value.name, value) is not value:
            raise ToolsFault(1, f"two tools are called {value.name!r}")
    return tools


def _detail(error: BaseException) -> str:
    """The type alone: a message could hold anything. Our own messages are for the author."""
    return f"{type(error).__name__}: {error}" if isinstance(error, BadTool) else type(error).__name__


def _line(error: BaseException, path: Path) -> int:
    if isinstance(error, SyntaxError):
        return error.lineno or 1
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 1 for frame in reversed(frames) if frame.filename == str(path)), 1)
