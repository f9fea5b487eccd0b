"""Tools that installed packages bring: entry points of the group `slipway.tools`, each a `Tool`.

Only packages that the operator names are looked at: an installed package adds nothing by itself, nor is it imported.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import Distribution, EntryPoint, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from service.tools.base import BadTool, Tool
from service.tools.sources.builtin import BUILTINS
from service.tools.sources.fresh_module import describe

GROUP = "slipway.tools"


class PackageFault(NamedTuple):
    """Fault of a package; `entry_point` is empty for the package as a whole."""

    package: str
    entry_point: str
    detail: str


class Packages:
    """Packages of the setting `AGENT_PACKAGES`, names separated by commas; `faults` name those not installed."""

    def __init__(self, names: str) -> None:
        self.faults: list[PackageFault] = []
        self._found: list[Distribution] = []
        for name in sorted({name.strip() for name in names.split(",")} - {""}):
            try:
                self._found.append(distribution(name))
            except (PackageNotFoundError, ValueError):
                self.faults.append(PackageFault(name, "", "AGENT_PACKAGES names it, and it is not installed"))

    def entry_points(self, group: str) -> Iterator[tuple[str, str, EntryPoint]]:
        """Yield name and version of a package with each of its entry points, in order of their names."""
        for found in self._found:
            for one in sorted(found.entry_points.select(group=group)):
                yield found.name, found.version, one


class PackageTools:
    """Tool source of packages. A tool's name begins with its package's: `acme_tools_look_up` of `acme-tools`."""

    kind = "package"
    file = ""

    def __init__(self, packages: Packages) -> None:
        self.faults: list[PackageFault] = []
        self.origins: dict[str, str] = {}  # package and version, by name of the tool
        self._tools: dict[str, Tool] = {}
        taken = set(BUILTINS)
        for package, version, one in packages.entry_points(GROUP):
            try:
                tool = _named(one.load(), package)
            except BaseException as error:  # SystemExit would end the whole service
                if isinstance(error, KeyboardInterrupt):
                    raise
                self.faults.append(PackageFault(package, one.name, describe(error)))
                continue
            if tool.name in taken:  # none of them is offered: an agent must get the tool it means
                self._tools.pop(tool.name, None)
                self.origins.pop(tool.name, None)
                self.faults.append(PackageFault(package, one.name, f"there is another tool {tool.name!r}"))
            else:
                self._tools[tool.name] = tool
                self.origins[tool.name] = f"{package} {version}"
            taken.add(tool.name)

    def tools(self, folder: Path) -> Mapping[str, Tool]:
        return self._tools


def _named(tool: object, package: str) -> Tool:
    """Return the tool under its package's name. Raises `BadTool` for what is no tool, or a name that is too long."""
    if not isinstance(tool, Tool):
        raise BadTool("the entry point names no Tool: make one with @tool()")
    return replace(tool, name=f"{re.sub(r'[-_.]+', '_', package).lower()}_{tool.name}")
