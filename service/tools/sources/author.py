"""Tool source of an agent's `tools.py`: the only place where loading a folder executes an author's code."""

from __future__ import annotations

import re
import sys
import traceback
from collections import deque
from collections.abc import Mapping
from inspect import signature
from itertools import count
from pathlib import Path
from types import CodeType, ModuleType

from service.text.suggest import unknown
from service.tools.base import BadTool, Tool, tool
from service.tools.sources.base import SourceFault

KEPT_MODULES = 4  # modules of one agent kept in `sys.modules`: runs in progress may use older ones
_WRONG_OPTION = re.compile(r"tool\(\) got an unexpected keyword argument '(\w+)'")
_serial = count(1)
_modules: dict[str, deque[str]] = {}  # by agent, oldest first


class AuthorTools:
    """Tool source of the functions in an agent's own `tools.py`, if present."""

    kind = "tools.py"
    file = "tools.py"

    def tools(self, folder: Path) -> Mapping[str, Tool]:
        path = folder / self.file
        return _import_tools(path, folder.name) if path.is_file() else {}


def _import_tools(path: Path, agent: str) -> dict[str, Tool]:
    """Import the module at `path` afresh and return every `Tool` among its names. Raises `SourceFault`."""
    code = _compiled(path)
    module = ModuleType(f"agent_tools.{agent}.{next(_serial)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pydantic look up their module there
    try:
        exec(code, module.__dict__)
        tools = _tools_in(module)
    except BaseException as error:  # SystemExit or a Rust panic would end the whole service
        del sys.modules[module.__name__]
        if isinstance(error, SourceFault | KeyboardInterrupt):
            raise
        raise _fault(_line(error, path), _detail(error)) from None
    _remember(agent, module.__name__)
    return tools


def _fault(line: int, detail: str) -> SourceFault:
    return SourceFault(AuthorTools.file, line, detail)


def _compiled(path: Path) -> CodeType:
    """Compile from source: a `.pyc` may be stale if the source was saved twice within one second."""
    try:
        return compile(path.read_bytes(), str(path), "exec")
    except SyntaxError as error:  # the compiler's own message, safe to show
        raise _fault(error.lineno or 1, f"{type(error).__name__}: {error.msg}") from None
    except ValueError as error:
        raise _fault(1, f"not Python: {error}") from None  # NUL bytes
    except (RecursionError, MemoryError) as error:
        raise _fault(1, f"{type(error).__name__}: it is nested too deep") from None
    except OSError as error:
        raise _fault(0, f"cannot be read: {error.strerror}") from None


def _tools_in(module: ModuleType) -> dict[str, Tool]:
    tools: dict[str, Tool] = {}
    for value in vars(module).values():
        if isinstance(value, Tool) and tools.setdefault(value.name, value) is not value:
            raise _fault(1, f"two tools are called {value.name!r}: rename one")
    return tools


def _remember(agent: str, name: str) -> None:
    """Drop this agent's oldest modules from `sys.modules`; runs in progress keep their functions alive."""
    names = _modules.setdefault(agent, deque())
    names.append(name)
    while len(names) > KEPT_MODULES:
        sys.modules.pop(names.popleft(), None)


def _detail(error: BaseException) -> str:
    """Return the error's type and the undefined name. Only our own messages are passed on: others may hold anything."""
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
