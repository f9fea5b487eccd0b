"""Imports that a package makes only so that their names can be had from it: made once somebody asks for a name.

For a large library of which little is used. Nothing of it is missing or changed, and what is laid out in another way
one day is imported as ever.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any

CanWait = Callable[[str, str], bool]  # of a package, and a module that it imports from


@contextmanager
def imports_wait(top: str, can_wait: CanWait) -> Iterator[None]:
    """For the packages of `top` that are imported within this."""
    finder = _Finder(top, can_wait)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    def __init__(self, top: str, can_wait: CanWait) -> None:
        self._top = top
        self._can_wait = can_wait

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != self._top:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.submodule_search_locations and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Package(fullname, spec.loader.path, self._can_wait)
        return spec


class _Package(SourceFileLoader):
    """Runs a package's `__init__` without the imports that can wait."""

    def __init__(self, fullname: str, path: str, can_wait: CanWait) -> None:
        super().__init__(fullname, path)
        self._can_wait = can_wait

    def exec_module(self, module: ModuleType) -> None:
        tree = ast.parse(self.get_data(self.path), self.path)
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and self._waits(node)]
        if not imports:
            return super().exec_module(module)
        waiting = {*imports}
        tree.body = [node for node in tree.body if node not in waiting]
        vars(module)["__getattr__"] = _Names(module, imports)
        exec(compile(tree, self.path, "exec"), vars(module))

    def _waits(self, node: ast.ImportFrom) -> bool:
        if node.level != 1 or node.module is None or node.names[0].name == "*":
            return False
        return self._can_wait(self.name, f"{self.name}.{node.module}")


class _Names:
    """A module's `__getattr__`: what it was to import."""

    def __init__(self, module: ModuleType, imports: Sequence[ast.ImportFrom]) -> None:
        self._module = module
        self._sources: dict[str, tuple[str, str]] = {}  # by name: the module, and what it is called there
        for node in imports:
            source = f"{module.__name__}.{node.module}"
            for alias in node.names:
                self._sources[alias.asname or alias.name] = (source, alias.name)

    def __call__(self, name: str) -> Any:
        if name not in self._sources:
            raise AttributeError(f"module {self._module.__name__!r} has no attribute {name!r}", name=name)
        source, there = self._sources[name]
        value = getattr(import_module(source), there)
        setattr(self._module, name, value)
        return value
