"""Reads an agent's `tools.py`: the one place where an author's code is run when a folder is read."""

from __future__ import annotations

import re
import sys
import traceback
from collections import deque
from inspect import signature
from itertools import count
from pathlib import Path
from types import CodeType, ModuleType

from service.agents.suggest import unknown
from service.tools import BadTool, Tool, tool

KEPT = 4  # modules of one agent that can be looked up by name: runs under way may still use older ones
_WRONG_OPTION = re.compile(r"tool\(\) got an unexpected keyword argument '(\w+)'")
_serial = count(1)
_modules: dict[str, deque[str]] = {}  # by agent, oldest first


class ToolsFault(Exception):
    """`tools.py` cannot be used; `line` is where it went wrong, as far as is known."""

    def __init__(self, line: int, detail: str) -> None:
        super().__init__(detail)
        self.line = line
        self.detail = detail


def import_tools(path: Path, agent: str) -> dict[str, Tool]:
    """Every `Tool` among the names of the module at `path`, imported anew each time. Raises `ToolsFault`."""
    code = _compiled(path)
    module = ModuleType(f"agent_tools.{agent}.{next(_serial)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pydantic look their module up there
    try:
        exec(code, module.__dict__)
        tools = _tools_in(module)
    except (
        BaseException
    ) as error:  # SystemExit, or the panic of a library in Rust: it would end the whole service
        del sys.modules[module.__name__]
        if isinstance(error, ToolsFault | KeyboardInterrupt):
            raise
        raise ToolsFault(_line(error, path), _detail(error)) from None
    _remember(agent, module.__name__)
    return tools


def _compiled(path: Path) -> CodeType:
    """From the bytes as they are: a `.pyc` beside the source could be older than its second."""
    try:
        return compile(path.read_bytes(), str(path), "exec")
    except SyntaxError as error:  # its words are the compiler's, and may be told
        raise ToolsFault(error.lineno or 1, f"{type(error).__name__}: {error.msg}") from None
    except ValueError as error:
        raise ToolsFault(1, f"not Python: {error}") from None  # NUL bytes
    except (RecursionError, MemoryError) as error:
        raise ToolsFault(1, f"{type(error).__name__}: it is nested too deep") from None
    except OSError as error:
        raise ToolsFault(0, f"cannot be read: {error.strerror}") from None


def _tools_in(module: ModuleType) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for value in vars(module).values():
        if isinstance(value, Tool) and tools.setdefault(value.name, value) is not value:
            raise ToolsFault(1, f"two tools are called {value.name!r}: rename one")
    return tools


def _remember(agent: str, name: str) -> None:
    """Forget the oldest module of this agent. What still uses its functions keeps them alive."""
    names = _modules.setdefault(agent, deque())
    names.append(name)
    while len(names) > KEPT:
        sys.modules.pop(names.popleft(), None)


def _detail(error: BaseException) -> str:
    """The type, and the name that was not found: any other message could hold anything. Our own are for the author."""
    kind = type(error).__name__
    if isinstance(error, BadTool):
        return f"{kind}: {error}"
    if isinstance(error, TypeError) and (wrong := _WRONG_OPTION.match(str(error))):
        options = [one.name for one in signature(tool).parameters.values() if one.kind is one.KEYWORD_ONLY]
        return f"{kind}: @tool() takes no {wrong[1]!r}{unknown(wrong[1], options)}"
    name = getattr(error, "name", None)
    if not isinstance(name, str) or not name.replace(".", "_").isidentifier():
        return kind
    if isinstance(error, ModuleNotFoundError):
        return f"{kind}: there is no module {name!r}: install it where Slipway runs"
    if isinstance(error, ImportError):
        return f"{kind}: {name!r} does not have all that this line imports"
    if isinstance(error, NameError):
        return f"{kind}: {name!r} is not defined: import or define it above"
    return f"{kind}: {name!r}" if isinstance(error, AttributeError) else kind


def _line(error: BaseException, path: Path) -> int:
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 1 for frame in reversed(frames) if frame.filename == str(path)), 1)
