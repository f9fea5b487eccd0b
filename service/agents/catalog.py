"""Catalog of agents that can be run: loaded at start, and in development reloaded when a folder changes.

A `Snapshot` is replaced as a whole, so readers never see half of a change. A run finds the version it began with by
name and version, even when that is no longer the current one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from service.agents.canary_split import ServedCanary
from service.agents.definitions import MODEL_ITSELF, AgentDefinition, FolderFault
from service.agents.elsewhere import nowhere_faults
from service.agents.files import Stamp, folders_of, stamp_of, version_of
from service.agents.last_good import LastGood
from service.agents.loader import Available, Loaded, load_folder
from service.agents.model_agents import model_agent
from service.agents.packages import PackagedAgents
from service.agents.sub_agents import sub_agent_faults

log = logging.getLogger("slipway.agents")
KEPT_VERSIONS = 16  # earlier versions kept for runs that began with them
PATIENCE = 5.0  # seconds a request waits for another one's reload
START_SECONDS = 10  # window in which the processes of one start log a fault only once …
EDIT_SECONDS = 3600  # … and in which all processes see an edit, logged only once
# (name, version) → that version, if it was published
Published = Callable[[str, str], AgentDefinition | None]
First = Callable[[str, int], bool]  # (text, seconds) → no process has logged the text within that time


class _Entry(NamedTuple):
    """Folder as last read, and the served agent: its last version without a fault."""

    stamp: Stamp
    loaded: Loaded
    agent: AgentDefinition | None


class Snapshot(NamedTuple):
    """State of all folders at one moment, by name."""

    entries: Mapping[str, _Entry] = MappingProxyType({})
    agents: Mapping[str, AgentDefinition] = MappingProxyType({})
    past: tuple[AgentDefinition, ...] = ()  # versions served before, latest last
    of_trees: tuple[FolderFault, ...] = ()  # of agents whose sub-agents do not fit


class AgentCatalog:
    """Agents of a folder; thread-safe. With `last_good`, `refresh` picks up edits; without, a restart does."""

    def __init__(
        self,
        agents_dir: Path,
        available: Available,
        packaged: PackagedAgents = PackagedAgents(),  # noqa: B008 (frozen)
        *,
        last_good: LastGood | None = None,
        first: First = lambda text, seconds: True,
    ) -> None:
        self._dir = agents_dir
        self._available = available
        self.packaged = packaged
        self._last_good = last_good
        self._first = first
        self._lock = threading.Lock()
        self._now = Snapshot()
        self._now = self._read(self._now)
        self._pinned: Mapping[str, AgentDefinition | None] = {}
        self._served = self._now.agents
        self._canaries: Mapping[str, ServedCanary] = {}
        self.published: Published = lambda name, version: None

    @property
    def agents(self) -> Mapping[str, AgentDefinition]:
        """Served agents, by id."""
        return self._served

    def serve(
        self,
        pinned: Mapping[str, AgentDefinition | None],
        canaries: Mapping[str, ServedCanary] = MappingProxyType({}),
    ) -> None:
        """Serve these versions in place of folders, and to some sessions and users the canaries.

        None: the version cannot be loaded, so the one pinned before stays, or else the agent is left out.
        """
        with self._lock:
            self._canaries = canaries
            self._pinned = {name: found or self._pinned.get(name) for name, found in pinned.items()}
            self._combine()

    def served_to(self, name: str, unit: str) -> AgentDefinition | None:
        """Return the version that a session, else user, is served: the pinned one, or its canary."""
        current, canary = self.agents.get(name), self._canaries.get(name)
        if canary is None or current is None or current.version != canary.against:
            return current
        return canary.definition if canary.split.side(unit) == "canary" else current

    def trial_of(self, name: str, unit: str) -> str:
        """Return the canary in which a session, else user, takes part, also in its control group; "" without one.

        Cached answers of a trial are its own, so that both sides begin without any and make the same calls.
        """
        canary = self._canaries.get(name)
        return f"canary {canary.split.n}" if canary is not None and canary.split.side(unit) else ""

    def load(self, folder: Path) -> Loaded:
        """Load an agent from any folder, without serving it."""
        return load_folder(folder, self._available)

    def load_own(self, name: str) -> Loaded | None:
        """Load an agent's own folder as it is now, without serving it; None: there is none."""
        own = folders_of(self._dir)
        folders = {folder.name: folder for folder in (*self.packaged.beside(own), *own)}
        return self.load(folders[name]) if name in folders else None

    def _combine(self) -> None:
        served = {name: agent for name, agent in self._now.agents.items() if name not in self._pinned}
        served |= {name: agent for name, agent in self._pinned.items() if agent is not None}
        self._served = MappingProxyType(served)

    @property
    def faults(self) -> tuple[FolderFault, ...]:
        """Faults that prevent folders, in their current state, from being served."""
        if not self._dir.is_dir():
            return (FolderFault("", str(self._dir), 0, "", "there is no such folder"),)
        packages = self.packaged.faults_beside(folders_of(self._dir))
        now = self._now
        loaded = (fault for entry in now.entries.values() for fault in entry.loaded.faults)
        nowhere = nowhere_faults(self._available.addresses, now.entries)
        return (*packages, *nowhere, *loaded, *now.of_trees)

    @property
    def warnings(self) -> tuple[FolderFault, ...]:
        """Settings that have no effect, or an unintended one."""
        return tuple(warning for entry in self._now.entries.values() for warning in entry.loaded.warnings)

    def find(self, name: str, version: str) -> AgentDefinition | None:
        """Return the agent in this version, or in the current one if that version is gone."""
        if version == MODEL_ITSELF:  # also where an agent has its name by now
            return model_agent(name, self._available.prices)
        current, now = self.agents.get(name), self._now
        known = (current, now.agents.get(name), *reversed(now.past))
        found = next((one for one in known if one and (one.id, one.version) == (name, version)), None)
        return found or self.published(name, version) or current

    def origin(self, name: str) -> str | None:
        """Return package and version that an agent comes from; None for a folder of `AGENTS_DIR`."""
        return None if (self._dir / name).is_dir() else self.packaged.origins.get(name)

    def model(self, name: str) -> AgentDefinition | None:
        """Return a model of the price table that is asked as it is. None: an agent has its name, or it has no price."""
        return None if name in self.agents else model_agent(name, self._available.prices)

    def models(self) -> list[str]:
        """List the models that may be asked as they are."""
        return [name for name in self._available.prices.models if self.model(name) is not None]

    def has(self, name: str) -> bool:
        """Return whether runs may have this name as their agent's: a model's, too."""
        model = self.model(name)
        return name in self.agents or (model is not None and model.id == name)

    def refresh(self) -> None:
        """Reload changed folders if reloading is on. Never raises: on failure the current agents stay."""
        if self._last_good is None or not self._lock.acquire(timeout=PATIENCE):
            return
        try:
            before, self._now = self._now, self._read(self._now)
            self._combine()
            if before is not self._now:
                self._log_changes(before.entries)
        except Exception:
            log.exception("agents_reload_failed")
        finally:
            self._lock.release()

    def refresh_in_background(self) -> None:
        """Refresh in a thread; called periodically, so that edits are loaded and logged without a request."""
        if self._last_good is not None and not self._lock.locked():
            threading.Thread(target=self.refresh, name="agents", daemon=True).start()

    def log_faults(self) -> None:
        """Log faults and warnings at the start."""
        for fault in (*self.faults, *self.warnings):
            if self._first(f"start {os.getppid()} {fault}", START_SECONDS):
                _log_fault(fault, self.agents.get(fault.agent))

    def write_summary(self, path: Path) -> None:
        """Write the summary that `make run` shows in its banner, as JSON; skip it if the disk is full."""
        left_out = {fault.agent: str(fault) for fault in reversed(self.faults)}  # first fault of each agent
        summary = {"served": len(self.agents), "left_out": [left_out[name] for name in sorted(left_out)]}
        own = path.with_suffix(f".{os.getpid()}")
        with suppress(OSError):
            own.write_text(json.dumps(summary), "utf-8")
            own.replace(path)

    def _read(self, before: Snapshot) -> Snapshot:
        """Read the folders; return `before` itself if nothing has changed."""
        old = before.entries
        own = folders_of(self._dir)
        folders = [*own, *self.packaged.beside(own)]
        entries = {folder.name: self._entry(folder, old.get(folder.name)) for folder in folders}
        if entries.keys() == old.keys() and all(entries[name] is old[name] for name in entries):
            return before
        agents = {name: entry.agent for name, entry in entries.items() if entry.agent is not None}
        of_trees = tuple(sub_agent_faults(agents))
        agents = {name: agent for name, agent in agents.items() if name not in {at.agent for at in of_trees}}
        replaced = [agent for name, agent in before.agents.items() if agents.get(name) is not agent]
        if self._last_good is not None:
            self._last_good.forget_but(set(entries))
        past = (*before.past, *replaced)[-KEPT_VERSIONS:]
        return Snapshot(entries, MappingProxyType(agents), past, of_trees)

    def _entry(self, folder: Path, old: _Entry | None) -> _Entry:
        stamp = stamp_of(folder)
        if old is not None and stamp.files == old.stamp.files and old.stamp.settled:
            return old
        if old is not None and version_of(folder) == old.loaded.version:
            # Content may be back to this version after an edit that only another process saw.
            if stamp.files != old.stamp.files:
                self._store_last_good(old.loaded)
            return old._replace(stamp=stamp)
        loaded = load_folder(folder, self._available)
        if old is not None and not loaded.whole:
            return old  # retried at the next request
        self._store_last_good(loaded)
        return _Entry(stamp, loaded, loaded.agent or self._served_before(folder.name, old))

    def _store_last_good(self, loaded: Loaded) -> None:
        """Record a valid agent as the last good version, for all processes."""
        if loaded.agent is not None and self._last_good is not None:
            self._last_good.keep(loaded.agent)

    def _served_before(self, name: str, old: _Entry | None) -> AgentDefinition | None:
        """Return the last good version, even if only another process saw it; none for a folder broken at the start."""
        current = old.agent if old is not None else None
        copy = self._last_good.find(name) if self._last_good is not None and self._now.entries else None
        if copy is None or (current is not None and version_of(copy) == current.version):
            return current
        return load_folder(copy, self._available).agent or current

    def _log_changes(self, before: Mapping[str, _Entry]) -> None:
        """Log the result of an edit once, from the process that reads it first."""
        now = self._now.entries
        for name, entry in now.items():
            old = before.get(name)
            if old is not None and old.loaded is entry.loaded:
                continue
            if self._first(f"edit {name} {_digest(entry.stamp)}", EDIT_SECONDS):
                _log_edit(name, entry, mended=old is not None and bool(old.loaded.faults))
        for name in before.keys() - now.keys():
            if self._first(f"removed {name} {_digest(before[name].stamp)}", EDIT_SECONDS):
                log.warning("agent_removed", extra={"agent": name})


def _log_edit(name: str, entry: _Entry, mended: bool) -> None:
    for fault in (*entry.loaded.faults, *entry.loaded.warnings):
        _log_fault(fault, entry.agent)
    if entry.loaded.agent is not None:
        log.info(
            "agent_fixed" if mended else "agent_loaded",
            extra={"agent": name, "version": entry.loaded.version},
        )


def _log_fault(fault: FolderFault, served: AgentDefinition | None) -> None:
    if fault.severity == "warning":
        log.warning("agent_warning", extra={"agent": fault.agent, "fault": str(fault)})
    else:
        serves = f"version {served.version}" if served is not None else "nothing"
        log.error("agent_fault", extra={"agent": fault.agent, "fault": str(fault), "serves": serves})


def _digest(stamp: Stamp) -> str:
    return hashlib.sha256(repr(stamp.files).encode("utf-8", "surrogateescape")).hexdigest()[:16]
