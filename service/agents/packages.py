"""Agents that installed packages bring: entry points of the group `slipway.agents`, each a folder of the package.

`library = "acme_agents.library"` names the folder `acme_agents/library`, which is the agent `library`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint
from importlib.util import find_spec
from pathlib import Path

from service.agents.definitions import FolderFault
from service.tools.sources.fresh_module import describe
from service.tools.sources.packages import PackageFault, Packages, PackageTools

GROUP = "slipway.agents"


@dataclass(frozen=True)
class PackagedAgents:
    """Folders of packages, by agent; `origins`: package and version, by agent, `tool_origins` by tool."""

    folders: Mapping[str, Path] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    tool_origins: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[FolderFault] = ()

    def beside(self, own: Sequence[Path]) -> list[Path]:
        """Return the folders whose agents are not among the operator's `own`."""
        names = {folder.name for folder in own}
        return [folder for name, folder in self.folders.items() if name not in names]

    def faults_beside(self, own: Sequence[Path]) -> Iterator[FolderFault]:
        """Find the packages' faults, and agents that are not served because an `own` folder has their name."""
        yield from self.faults
        for folder in own:
            if folder.name in self.folders:
                detail = f"takes the place of the agent of package {self.origins[folder.name]}: rename it"
                yield FolderFault(folder.name, str(folder), 0, "", detail)


def packaged_agents(packages: Packages, tools: PackageTools) -> PackagedAgents:
    """Find the agents' folders. A name that two packages use is served by neither."""
    folders: dict[str, Path] = {}
    origins: dict[str, str] = {}
    faults = [*packages.faults, *tools.faults]
    for package, version, one in packages.entry_points(GROUP):
        try:
            folder = _folder(one)
        except BaseException as error:  # SystemExit would end the whole service
            if isinstance(error, KeyboardInterrupt):
                raise
            detail = str(error) if isinstance(error, _NoFolder) else describe(error)
            faults.append(PackageFault(package, one.name, detail))
            continue
        if one.name in origins:
            folders.pop(one.name, None)
            faults.append(PackageFault(package, one.name, f"{origins[one.name]} has an agent of this name"))
        else:
            folders[one.name], origins[one.name] = folder, f"{package} {version}"
    return PackagedAgents(folders, origins, tools.origins, tuple(map(_shown, faults)))


class _NoFolder(Exception):
    pass


def _folder(one: EntryPoint) -> Path:
    """Return the folder that an entry point names; imports the packages above it, and not the folder itself."""
    spec = find_spec(one.module)
    found = [Path(place) for place in (spec.submodule_search_locations or ())] if spec is not None else []
    if one.attr or len(found) != 1 or not found[0].is_dir():
        raise _NoFolder(f"{one.value!r} is no folder of the package")
    if found[0].name != one.name:
        raise _NoFolder(f"the folder is called {found[0].name!r}: give the entry point the same name")
    return found[0]


def _shown(fault: PackageFault) -> FolderFault:
    where = f"entry point {fault.entry_point}" if fault.entry_point else ""
    return FolderFault(fault.package, f"package {fault.package}", 0, where, fault.detail)
