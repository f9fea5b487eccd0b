"""Last good copies of agents' folders, for development, where folders are edited under running processes.

A process that missed an edit before the next one broke the folder serves the same version as the process that saw it.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from service.agents.definitions import AgentDefinition
from service.agents.files import counted, version_of

LATEST = "latest"  # file that names the last good version


class LastGood:
    """Store with the last good copy of each agent's folder. Best effort: without disk space a copy is skipped."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def keep(self, agent: AgentDefinition) -> None:
        """Copy the folder of a valid agent, unless another process has; delete older copies."""
        home = self._home / agent.id
        with suppress(OSError):
            if not self._copy(agent.id, agent.version).is_dir() and not self._copied(agent, home):
                return
            pointer = home / f".{os.getpid()}"
            pointer.write_text(agent.version)
            pointer.replace(home / LATEST)
            for path in home.iterdir():
                if path.is_dir() and path.name != agent.version:
                    shutil.rmtree(path, ignore_errors=True)

    def find(self, name: str) -> Path | None:
        try:
            copy = self._copy(name, (self._home / name / LATEST).read_text())
        except OSError:
            return None
        return copy if copy.is_dir() else None

    def forget_but(self, names: set[str]) -> None:
        """Delete the copies of agents that are not in `names`."""
        with suppress(OSError):
            for path in self._home.iterdir():
                if path.name not in names:
                    shutil.rmtree(path, ignore_errors=True)

    def _copy(self, name: str, version: str) -> Path:
        return self._home / name / version / name  # the loader takes the agent's id from the folder name

    def _copied(self, agent: AgentDefinition, home: Path) -> bool:
        """Copy the folder; return whether a copy exists now. A folder edited meanwhile is not stored."""
        own = home / f".{os.getpid()}-{agent.version}"
        for path in counted(agent.folder):
            target = own / agent.id / path.relative_to(agent.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if version_of(own / agent.id) == agent.version:
            with suppress(OSError):  # another process has created it
                own.rename(home / agent.version)
        shutil.rmtree(own, ignore_errors=True)
        return self._copy(agent.id, agent.version).is_dir()
