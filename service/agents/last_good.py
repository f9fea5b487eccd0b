"""Copies of the agents' folders as they last were in order: a process that an edit passed by before the next one broke
the folder serves the same version as the one that saw it. For development, where folders are edited under processes."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from service.agents.definitions import AgentDefinition
from service.agents.files import counted, version_of

LATEST = "latest"  # file with the version that was in order last


class LastGood:
    """One folder for each agent, with a copy of its latest version. Without room on the disk there is none."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def keep(self, agent: AgentDefinition) -> None:
        """Copy the folder of an agent in order, unless another process has; older copies go."""
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
        """The copy of an agent's folder."""
        try:
            copy = self._copy(name, (self._home / name / LATEST).read_text())
        except OSError:
            return None
        return copy if copy.is_dir() else None

    def forget_but(self, names: set[str]) -> None:
        """Delete the copies of agents that are gone."""
        with suppress(OSError):
            for path in self._home.iterdir():
                if path.name not in names:
                    shutil.rmtree(path, ignore_errors=True)

    def _copy(self, name: str, version: str) -> Path:
        return self._home / name / version / name  # its own name is the agent's

    def _copied(self, agent: AgentDefinition, home: Path) -> bool:
        """Whether a copy is there now. None of a folder that was edited meanwhile."""
        own = home / f".{os.getpid()}-{agent.version}"
        for path in counted(agent.folder):
            target = own / agent.id / path.relative_to(agent.folder)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        if version_of(own / agent.id) == agent.version:
            with suppress(OSError):  # another process was quicker
                own.rename(home / agent.version)
        shutil.rmtree(own, ignore_errors=True)
        return self._copy(agent.id, agent.version).is_dir()
