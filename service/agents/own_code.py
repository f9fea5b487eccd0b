"""Code of an agent's own: the generator `run(context)` of its `agent.py`, executed apart from the run.

The generator asks for steps and gets their outcomes. Its threads are its own: one at a time, and only between steps.
A run can leave code that hangs behind, and such code can reach neither the journal nor the database.
"""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from service.errors import Overloaded
from service.tools.sources.base import SourceFault
from service.tools.sources.fresh_module import import_afresh

if TYPE_CHECKING:
    from service.agents.pattern import Context

CODE = "code"  # name of the pattern
FILE = "agent.py"
SLOTS = 32  # runs of one agent whose code may execute, or hang, at once in this process
SLOT_SECONDS = 5.0  # longest wait for a slot, in seconds
_HINT = "write `def run(context)`, with `yield from context.steps.…` in it"
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True, slots=True)
class Returned:
    """End of the code, with its return value."""

    value: object


@dataclass(frozen=True, slots=True)
class Raised:
    """End of the code by an exception."""

    error: BaseException


@dataclass(frozen=True, slots=True)
class Program:
    """Generator function of an agent's `agent.py`."""

    path: Path
    run: Callable[[Context], Generator[Any, Any, Any]]
    slots: threading.BoundedSemaphore = field(default_factory=lambda: threading.BoundedSemaphore(SLOTS))

    def advance(self, code: Generator[Any, Any, Any], reply: object) -> Future[object]:
        """Execute the code until it asks for its next step; the future gets that request, `Returned` or `Raised`.

        Raises `Overloaded` without a free slot or thread.
        """
        return self._in_thread(lambda: code.send(reply))

    def close(self, code: Generator[Any, Any, Any]) -> Future[object]:
        """End code that asked for a step it gets no outcome of: its `finally` blocks run."""
        return self._in_thread(code.close)

    def _in_thread(self, act: Callable[[], object]) -> Future[object]:
        done: Future[object] = Future()
        if not self.slots.acquire(timeout=SLOT_SECONDS):
            raise Overloaded("The code of this agent executes, or hangs, too often.")

        def work() -> None:
            try:
                outcome = act()
            except StopIteration as end:
                outcome = Returned(end.value)
            except BaseException as error:  # even sys.exit() must not leave the run waiting
                outcome = Raised(error)
            self.slots.release()
            done.set_result(outcome)

        inherited = contextvars.copy_context()
        thread = threading.Thread(target=inherited.run, args=(work,), name="agent-code", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system's thread limit is reached
            self.slots.release()
            raise Overloaded("There is no thread for the code of this agent.") from None
        return done


def load_program(folder: Path) -> Program:
    """Import `agent.py` afresh and find its generator. Raises `SourceFault`."""
    path = folder / FILE
    if not path.is_file():
        raise SourceFault(FILE, 0, f"is missing: {_HINT}")
    return import_afresh(path, f"agent_code.{folder.name}", lambda module: _program(module, path))


def _program(module: ModuleType, path: Path) -> Program:
    run = vars(module).get("run")
    if not inspect.isfunction(run):
        raise SourceFault(FILE, 0, f"has no function `run`: {_HINT}")
    line = run.__code__.co_firstlineno if run.__code__.co_filename == str(path) else 0
    if not inspect.isgeneratorfunction(run):
        raise SourceFault(FILE, line, f"`run` is no generator function: {_HINT}")
    parameters = list(inspect.signature(run).parameters.values())
    if len(parameters) != 1 or parameters[0].kind not in _POSITIONAL:
        raise SourceFault(FILE, line, "`run` must take one parameter, the context")
    return Program(path, run)
