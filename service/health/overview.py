"""Overview of the service: read once for all who ask within two seconds, within a time-out."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from service.health.meanings import MEANINGS
from service.health.process import ProcessState, state_of
from service.observe.probes import Probe
from service.observe.traffic import WIDTH, quantile
from service.runs.stops import AgentStops
from service.store import schedules, standing, workers
from service.store.database import Database, Row, Transaction
from service.store.standing import Queue, Standing
from service.types import public_fields, rfc3339, usd

KEEP_SECONDS = 2.0
MAX_PROCESSES = 500
# From which age in seconds, or share of the disk, a part counts as degraded.
OLD_TASK, OVERDUE, OLD_HOLD, UNLINKED, FREE_DISK = 300, 60, 3600, 60, 0.1


class Stored(NamedTuple):
    """Figures that are read from the database."""

    standing: Standing
    processes: list[Row]
    slots: dict[str, int]  # of schedules in the last day, by outcome
    stopped: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Overview:
    """Reads the overview. One per process; `folder` is on the disk whose room is told."""

    db: Database
    stops: AgentStops
    own: ProcessState
    folder: Path
    _kept: dict[str, Stored] = field(default_factory=dict)
    _probes: dict[str, Probe] = field(default_factory=dict)

    def read(self, parts: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
        """Return the overview; `parts`: states of the parts, as in `/ready`.

        Unless `whole`, without processes and without what others' runs, approvals and money would show by. The same
        fields are None while the database cannot be read.
        """
        stored = self._stored()
        states = [state_of(row) for row in stored.processes if row["alive"]] if stored else [self.own.read()]
        breakers, servers = _breakers(states), _servers(states)
        disk = shutil.disk_usage(self.folder)
        found = [
            *_of_parts(parts),
            *_of_breakers(breakers),
            *_of_servers(servers),
            *(_of_stored(stored, states) if stored else ()),
            *([("disk", "")] if disk.free < FREE_DISK * disk.total else []),
        ]
        answer = {
            "breakers": breakers,
            "mcp_servers": servers,
            "degraded": [
                _meaning(part, about if whole or part != "process" else "") for part, about in found
            ],
        }
        disk_state = {"free_bytes": disk.free, "size_bytes": disk.total}
        hidden = dict.fromkeys((*_SHOWN, "traffic", "disk", "stopped_agents"))
        if not whole:
            return {**hidden, **answer}
        return {
            **hidden,
            **answer,
            "traffic": _traffic(states),
            "disk": disk_state,
            **({**_shown(stored), "stopped_agents": stored.stopped} if stored else {}),
        }

    def _stored(self) -> Stored | None:
        """Return what stands in the database, at most `KEEP_SECONDS` old; None: it cannot be read in time."""
        probe = self._probes.setdefault("stored", Probe(self._refresh, "down", KEEP_SECONDS))
        return self._kept.get("stored") if probe.state(probe.begin())["status"] == "ok" else None

    def _refresh(self) -> None:
        def read(tx: Transaction) -> Stored:
            found = standing.read(tx)
            return Stored(
                found, workers.listed(tx, MAX_PROCESSES), schedules.outcomes(tx, found.now - 86_400_000), []
            )

        stored = self.db.query(read, patience=0)
        self._kept["stored"] = stored._replace(stopped=self.stops.every())


# --- what is degraded -----------------------------------------------------------------------------------

Found = Iterator[tuple[str, str]]  # parts, and which one of its kind


def _of_parts(parts: Mapping[str, Any]) -> Found:
    for name in ("database", "redis", "model", "worker", "keyring"):
        if name in parts and parts[name]["status"] != "ok":
            yield name, parts[name].get("reason") or ""


def _of_breakers(breakers: Sequence[Mapping[str, Any]]) -> Found:
    for each in breakers:
        if each["state"] != "closed":
            yield "breaker", f"{each['model']} at {each['provider']}" if each["provider"] else each["model"]


def _of_servers(servers: Sequence[Mapping[str, Any]]) -> Found:
    for each in servers:
        if each["away_in"] or each["breaker"] != "closed":
            yield "mcp", each["server"]


def _of_stored(stored: Stored, states: Sequence[Mapping[str, Any]]) -> Found:
    now = stored.standing
    for row in stored.processes:
        if not row["alive"]:
            yield "process", f"{row['kind']} {row['host']} {row['pid']}"
    versions = sorted({state["version"] for state in states if state["version"]})
    if len(versions) > 1:
        yield "versions", ", ".join(versions)
    if any(queue.age(now.now) > OLD_TASK for priority, queue in now.tasks.items() if priority != "batch"):
        yield "tasks", ""
    if now.schedules.age(now.now) > OVERDUE:
        yield "schedules", ""
    if now.holds.age(now.now) > OLD_HOLD:
        yield "holds", ""
    if now.unlinked_seconds > UNLINKED or any(state["audit_intact"] is False for state in states):
        yield "audit", ""
    for stop in stored.stopped:
        yield "agent", stop["agent"]


def _meaning(part: str, about: str) -> dict[str, Any]:
    return {"part": part, "about": about or None, **MEANINGS[part]._asdict()}


# --- what is shown --------------------------------------------------------------------------------------


def _shown(stored: Stored) -> dict[str, Any]:
    now = stored.standing
    missed = {outcome: count for outcome, count in stored.slots.items() if outcome != "run"}
    runs = [{"status": status, **_queue(queue)} for status, queue in sorted(now.runs.items())]
    tasks = [{"priority": priority, **_queue(queue)} for priority, queue in now.tasks.items()]
    values = (
        [_process(row, now.now) for row in stored.processes],
        runs,
        tasks,
        _queue(now.approvals),
        {"overdue": _queue(now.schedules), "missed": sum(missed.values())},
        {**_queue(now.holds), "held_usd": usd(now.held_nano)},
        {"unlinked_seconds": round(now.unlinked_seconds, 1), "intact": _intact(stored)},
    )
    return dict(zip(_SHOWN, values, strict=True))


_SHOWN = ("replicas", "runs", "tasks", "approvals", "schedules", "holds", "audit")


def _queue(queue: Queue) -> dict[str, Any]:
    return {"count": queue.size, "oldest_at": None if queue.since is None else rfc3339(queue.since)}


def _process(row: Row, now: int) -> dict[str, Any]:
    state = state_of(row)
    pools = [{"name": name, "used": used, "size": size} for name, (used, size) in state["pools"].items()]
    return {
        **public_fields(row, "id kind host pid started_at"),
        "alive": bool(row["alive"]),
        "uptime_seconds": max(0, now - row["started_at"]) // 1000,
        "lease_seconds": round(row["lease_ms"] / 1000, 1),
        "version": state["version"],
        "runs": state["runs"],
        "pools": pools,
        "traffic": None if state["traffic"] is None else _traffic([state]),
    }


def _intact(stored: Stored) -> bool | None:
    """Return whether the audit is intact; None: no process has verified all of it yet."""
    told = {state_of(row)["audit_intact"] for row in stored.processes if row["alive"]}
    return False if False in told else True if True in told else None


def _traffic(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    told = [state["traffic"] for state in states if state["traffic"] and len(state["traffic"]) == WIDTH]
    counts = [sum(column) for column in zip(*told, strict=True)] or [0] * WIDTH
    return {
        "requests": counts[0],
        "failed": counts[1],
        "p50_seconds": quantile(counts, 0.5),
        "p95_seconds": quantile(counts, 0.95),
    }


def _breakers(states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join the breakers of all processes: the state of the worst, and in how many it is not closed."""
    joined: dict[tuple[str, str], dict[str, Any]] = {}
    order = ("closed", "half_open", "open")
    for each in (each for state in states for each in state["breakers"]):
        one = joined.setdefault((each["provider"], each["model"]), {**each, "open_in": 0})
        one["open_in"] += each["state"] != "closed"
        one["retry_after"] = max(one["retry_after"], each["retry_after"])
        one["state"] = max(one["state"], each["state"], key=order.index)
    return [joined[key] for key in sorted(joined)]


def _servers(states: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Join the MCP servers of all processes: in how many each is reached, and in how many it is not."""
    up, away, breaker = Counter[str](), Counter[str](), dict[str, str]()
    for name, reached, state in (each for one in states for each in one["servers"]):
        up[name] += reached is True
        away[name] += reached is False
        breaker[name] = state if breaker.get(name, "closed") == "closed" else breaker[name]
    return [
        {"server": name, "up_in": up[name], "away_in": away[name], "breaker": breaker[name]}
        for name in sorted(breaker)
    ]
