"""Import of an author's module afresh: the only place where loading a folder executes an author's code."""

from __future__ import annotations

import re
import sys
import traceback
from collections import deque
from collections.abc import Callable
from inspect import signature
from itertools import count
from pathlib import Path
from types import CodeType, ModuleType
from typing import TypeVar

from service.text.suggest import unknown
from service.tools.base import BadTool, tool
from service.tools.sources.base import SourceFault

KEPT_MODULES = 4  # modules of one name kept in `sys.modules`: runs in progress may use older ones
_WRONG_OPTION = re.compile(r"tool\(\) got an unexpected keyword argument '(\w+)'")
_serial = count(1)
_modules: dict[str, deque[str]] = {}  # by name, oldest first
T = TypeVar("T")


def import_afresh(path: Path, name: str, read: Callable[[ModuleType], T]) -> T:
    """Import the module at `path`, under `name` and a number, and return what `read` finds in it.

    Raises `SourceFault`.
    """
    code = _compiled(path)
    module = ModuleType(f"{name}.{next(_serial)}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses and pydantic look up their module there
    try:
        exec(code, module.__dict__)
        found = read(module)
    except BaseException as error:  # SystemExit or a Rust panic would end the whole service
        del sys.modules[module.__name__]
        if isinstance(error, SourceFault | KeyboardInterrupt):
            raise
        raise SourceFault(path.name, line_in(error, path) or 1, describe(error)) from None
    _remember(name, module.__name__)
    return found


def _compiled(path: Path) -> CodeType:
    """Compile from source: a `.pyc` may be stale if the source was saved twice within one second."""
    try:
        return compile(path.read_bytes(), str(path), "exec")
    except SyntaxError as error:  # the compiler's own message, safe to show
        raise SourceFault(path.name, error.lineno or 1, f"{type(error).__name__}: {error.msg}") from None
    except ValueError as error:
        raise SourceFault(path.name, 1, f"not Python: {error}") from None  # NUL bytes
    except (RecursionError, MemoryError) as error:
        raise SourceFault(path.name, 1, f"{type(error).__name__}: it is nested too deep") from None
    except OSError as error:
        raise SourceFault(path.name, 0, f"cannot be read: {error.strerror}") from None


def _remember(name: str, module: str) -> None:
    """Drop the oldest modules of this name from `sys.modules`; runs in progress keep their functions alive."""
    names = _modules.setdefault(name, deque())
    names.append(module)
    while len(names) > KEPT_MODULES:
        sys.modules.pop(names.popleft(), None)


def describe(error: BaseException) -> str:
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


def line_in(error: BaseException, path: Path) -> int:
    """Return the line of `path` where an error was raised or passed; 0 if nowhere there."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno or 0 for frame in reversed(frames) if frame.filename == str(path)), 0)
