"""Published versions of agents: kept in the database, so that every replica can run them; pinned, on trial.

Where folders are edited while the service runs (development), they are what is served, and pins wait.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.agents.canaries import Canaries, split_of
from service.agents.canary_split import ServedCanary
from service.agents.catalog import AgentCatalog
from service.agents.definitions import AgentDefinition
from service.agents.packed_files import BadFiles, folder_with, pack, prune, read, signature, unpack
from service.audit.record import Action, record
from service.errors import Conflict, DatabaseUnavailable, NotFound, fault
from service.store import agent_canaries
from service.store import agent_versions as rows
from service.store.database import Database, Row, Transaction
from service.types import now_ms, public_fields

log = logging.getLogger("slipway.agents")
EVERY_SECONDS = 60.0  # a process looks for pins, besides those that its sweep has found
MOST_LOADED = 32  # versions that a process keeps loaded
HISTORY = 20  # pins that are shown


@dataclass(slots=True)
class AgentVersions:
    """Versions of agents. One per process. `serves`: pinned versions take the place of folders."""

    db: Database
    catalog: AgentCatalog
    home: Path  # for the files of versions
    secret: str
    serves: bool
    canaries: Canaries
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _loaded: dict[tuple[str, str], AgentDefinition] = field(default_factory=dict)
    _pinned: dict[str, str | None] = field(default_factory=dict)
    _on_trial: list[Row] = field(default_factory=list)
    _failed: bool = False  # a version to serve could not be loaded
    _next: float = 0.0  # time.monotonic() of the next look

    def read(self, agent: str) -> dict[str, Any]:
        """Read an agent's folder as a version to publish. Raises `NotFound`, and `Conflict` for one with faults."""
        loaded = self.catalog.load_own(agent)
        if loaded is None:
            raise NotFound(f"There is no folder of an agent named {agent}.")
        if loaded.agent is None or not loaded.whole:
            raise Conflict(f"The folder of {agent} cannot be served: `flask agents check {agent}` says why.")
        try:
            files = read(loaded.agent.folder)
            text = pack(files)
            folder_with(files, self.home, agent, loaded.version)
            self._prune(agent, loaded.version)
        except BadFiles as error:
            raise Conflict(f"The folder of {agent} {error}.") from None
        except OSError:
            raise Conflict(
                f"The files of {agent} cannot be read, or not be copied to SLIPWAY_HOME."
            ) from None
        return {
            "agent": agent,
            "version": loaded.version,
            "files": text,
            "signature": signature(self.secret, agent, loaded.version, text),
            "size": sum(map(len, files.values())),
        }

    def publish(self, tx: Transaction, row: dict[str, Any]) -> dict[str, Any]:
        """Store a version that was read, once; return the agent's versions."""
        if rows.insert(tx, {**row, "published_by": tx.actor.user_id, "published_at": now_ms()}):
            rows.trim(tx, row["agent"])
            record(tx, Action.AGENT_PUBLISHED, f"agent:{row['agent']}", version=row["version"])
        return self.shown(tx, row["agent"])

    def pin(self, tx: Transaction, agent: str, version: str | None) -> dict[str, Any]:
        """Serve a published version from now on; None: the folder. Raises `Invalid` for one that is not published."""
        rows.lock(tx, agent)
        if version is not None and not rows.is_published(tx, agent, version):
            raise fault("/version", f"{agent} has no published version {version}.")
        return self._pin(tx, agent, version, rows.last_pins(tx, agent, 1))

    def roll_back(self, tx: Transaction, agent: str) -> dict[str, Any]:
        """Serve what was served before the last pin. Raises `Conflict` where nothing was pinned, or it is gone."""
        rows.lock(tx, agent)
        last = rows.last_pins(tx, agent, 2)
        if not last:
            raise Conflict(f"No version of {agent} was ever pinned.")
        before = last[1]["version"] if len(last) > 1 else None
        if before is not None and not rows.is_published(tx, agent, before):
            raise Conflict(f"The version {before} of {agent} is not kept any more.")
        return self._pin(tx, agent, before, last)

    def start_canary(self, tx: Transaction, agent: str, version: str, share: float) -> dict[str, Any]:
        """Serve a published version to a share of sessions and users. Raises `Invalid` and `Conflict`."""
        rows.lock(tx, agent)
        self.canaries.start(tx, agent, version, share)
        tx.after_commit(self.refresh_in_background)
        return self.shown(tx, agent)

    def end_canary(self, tx: Transaction, agent: str) -> dict[str, Any]:
        """Serve the pinned version to everybody again. Raises `Conflict` where there is no canary."""
        rows.lock(tx, agent)
        if not self.canaries.end(tx, agent, None):
            raise Conflict(f"{agent} has no canary.")
        tx.after_commit(self.refresh_in_background)
        return self.shown(tx, agent)

    def show(self, agent: str) -> dict[str, Any]:
        """Read what the API shows of an agent's versions. Raises `NotFound`."""
        return self.db.query(lambda tx: self.shown(tx, agent))

    def shown(self, tx: Transaction, agent: str) -> dict[str, Any]:
        """Return what the API shows of an agent's versions. Raises `NotFound` for an agent without any."""
        found, pins = rows.listed(tx, agent), rows.last_pins(tx, agent, HISTORY)
        if not found and not pins and not self.catalog.has(agent):
            raise NotFound(f"There is no agent named {agent}.")
        pinned = pins[0]["version"] if pins else None
        names = "version size published_by published_at"
        versions = [public_fields(row, names) | {"pinned": row["version"] == pinned} for row in found]
        history = [public_fields(row, "version pinned_by pinned_at") for row in pins]
        about = {"agent": agent, "pinned": pinned, "canary": self.canaries.shown(tx, agent)}
        return {**about, "data": versions, "history": history, "next_cursor": None}

    def find(self, agent: str, version: str) -> AgentDefinition | None:
        """Return a published version, loaded once; None: there is none, or it cannot be loaded.

        Raises `DatabaseUnavailable`.
        """
        key = (agent, version)
        found = self._loaded.get(key)  # once: another thread may leave it out meanwhile
        if found is not None and not found.folder.is_dir():  # pruned
            found = None
        if found is None and (found := self._load(agent, version)) is not None:
            if len(self._loaded) >= MOST_LOADED:
                served = {*self._pinned.items(), *((row["agent"], row["version"]) for row in self._on_trial)}
                self._loaded = {one: kept for one, kept in self._loaded.items() if one in served}
            self._loaded[key] = found
        return found

    def refresh(self) -> None:
        """Serve what is pinned now; a version that could not be loaded is tried again. Raises `DatabaseUnavailable`."""
        self._next = time.monotonic() + EVERY_SECONDS
        if not self.serves:
            return
        with self._lock:
            pinned, on_trial = self.db.query(lambda tx: (rows.pinned(tx), _on_trial(tx)))
            if (pinned, on_trial) == (self._pinned, self._on_trial) and not self._failed:
                return
            wanted = [(agent, version) for agent, version in pinned.items() if version is not None]
            served = {agent: self.find(agent, version) for agent, version in wanted}
            found = [(row, self.find(row["agent"], row["version"])) for row in on_trial]
            canaries = {
                row["agent"]: ServedCanary(split_of(row), agent, row["against"])
                for row, agent in found
                if agent
            }
            self.catalog.serve(served, canaries)
            self._pinned, self._on_trial = pinned, on_trial
            self._failed = None in served.values() or len(canaries) < len(on_trial)

    def refresh_in_background(self) -> None:
        """Refresh in a thread: the supervisor must not wait for an author's imports."""
        if self.serves and not self._lock.locked():
            threading.Thread(target=self._guarded, name="agent-versions", daemon=True).start()

    def refresh_at_times(self) -> None:
        """Refresh in a thread where the last time was long ago."""
        if time.monotonic() > self._next:
            self.refresh_in_background()

    def _guarded(self) -> None:
        try:
            self.refresh()
        except DatabaseUnavailable:  # the next sweep tries again
            self._next = 0.0
        except Exception:
            log.exception("agent_versions_failed")

    def _pin(self, tx: Transaction, agent: str, version: str | None, last: list[Row]) -> dict[str, Any]:
        before = last[0]["version"] if last else None
        if before != version:
            rows.pin(tx, agent, version, tx.actor.user_id)
            self.canaries.end(tx, agent, version)
            record(tx, Action.AGENT_PINNED, f"agent:{agent}", version=version, before=before)
            tx.after_commit(self.refresh_in_background)
        return self.shown(tx, agent)

    def _prune(self, agent: str, version: str) -> None:
        """Delete what was unpacked of the agent's other versions and is not used any more."""
        prune(self.home, agent, {version, *self.db.query(lambda tx: rows.in_use(tx, agent))})

    def _load(self, agent: str, version: str) -> AgentDefinition | None:
        row = self.db.query(lambda tx: rows.get(tx, agent, version))
        if row is None:
            return None
        try:
            if not hmac.compare_digest(
                row["signature"], signature(self.secret, agent, version, row["files"])
            ):
                raise BadFiles("was not published under this SECRET_KEY")
            folder = folder_with(unpack(row["files"]), self.home, agent, version)
            self._prune(agent, version)
        except (BadFiles, OSError) as error:
            _log_failed(agent, version, str(error) if isinstance(error, BadFiles) else type(error).__name__)
            return None
        loaded = self.catalog.load(folder)
        if loaded.agent is None:
            _log_failed(agent, version, str(loaded.faults[0]) if loaded.faults else "it changed")
        return loaded.agent


def _on_trial(tx: Transaction) -> list[Row]:
    """Return what of the open canaries decides whom they are served to."""
    names = ("agent", "n", "version", "against", "share")
    return [{name: row[name] for name in names} for row in agent_canaries.open_ones(tx)]


def _log_failed(agent: str, version: str, why: str) -> None:
    log.error("agent_version_failed", extra={"agent": agent, "version": version, "fault": why})
