"""Canaries of agents: a share of sessions and users gets a new version; it is compared, and rolled back when worse."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from service.agents import canary_test
from service.agents.canary_split import OF, CanarySplit
from service.agents.canary_test import Observation, looks_due
from service.audit.record import Action, record
from service.errors import Conflict, DatabaseUnavailable, fault
from service.store import agent_canaries as rows
from service.store import agent_versions
from service.store.database import Database, Row, Transaction
from service.types import RunStatus, now_ms, public_fields, rfc3339, usd

log = logging.getLogger("slipway.agents")
EVERY_MS = 20_000  # between two comparisons of a canary …
LOAD = 20  # … and so many times as long as the last one took
SIDES = ("canary", "pinned")


@dataclass(frozen=True, slots=True)
class Canaries:
    """Canaries. One per process. `counted(agent, outcome)` is told of each start and end, after its commit."""

    db: Database
    counted: Callable[[str, str], None]
    _busy: threading.Lock = field(default_factory=threading.Lock)

    def start(self, tx: Transaction, agent: str, version: str, share: float) -> None:
        """Serve a published version to a share of sessions and users. Raises `Invalid` and `Conflict`.

        The caller holds the lock of the agent's versions.
        """
        pins = agent_versions.last_pins(tx, agent, 1)
        pinned = pins[0]["version"] if pins else None
        if pinned is None:
            raise Conflict(f"No version of {agent} is pinned: a canary is compared with the pinned one.")
        if not agent_versions.is_published(tx, agent, version):
            raise fault("/version", f"{agent} has no published version {version}.")
        if version == pinned:
            raise fault("/version", f"{version} is the pinned version.")
        if (other := rows.open_of(tx, agent)) is not None:
            raise Conflict(f"{agent} has a canary already, of {other['version']}: end it first.")
        values = {"agent": agent, "version": version, "against": pinned, "share": round(share * OF)}
        rows.start(tx, {**values, "started_by": tx.actor.user_id}, now_ms() + EVERY_MS)
        record(
            tx, Action.AGENT_CANARY, f"agent:{agent}", version=version, before=pinned, share=values["share"]
        )
        tx.after_commit(partial(self.counted, agent, "started"))

    def end(self, tx: Transaction, agent: str, pinned: str | None) -> bool:
        """End the agent's canary, as `pinned` is served now. False: there is none.

        The caller holds the lock of the agent's versions.
        """
        canary = rows.open_of(tx, agent)
        if canary is not None:
            self._end(tx, canary, "pinned" if pinned == canary["version"] else "ended")
        return canary is not None

    def shown(self, tx: Transaction, agent: str) -> dict[str, Any] | None:
        """Return what the API shows of an agent's last canary; None: it never had any."""
        canary = rows.last(tx, agent)
        if canary is None:
            return None
        tested = "worse" if canary["worse_in"] else "not_worse"
        return {
            **public_fields(canary, "version against started_by worse_in outcome ended_at"),
            **(canary["figures"] or figures_of([])),
            "share": canary["share"] / OF,
            "since": rfc3339(canary["started_at"]),
            "verdict": tested if canary["looks"] else "waiting",
            "looks": canary["looks"],
        }

    def compare_in_background(self) -> None:
        """Compare in a thread: the supervisor must not wait for the reading of many runs."""
        if not self._busy.locked():
            threading.Thread(target=self._guarded, name="canaries", daemon=True).start()

    def compare(self) -> None:
        """Compare the canaries that are due; roll back those that are worse. Raises `DatabaseUnavailable`."""
        with self._busy:
            for canary in self.db.query(rows.due):
                if self.db.transact(partial(rows.take, canary=canary, next_at=now_ms() + EVERY_MS)):
                    self._compare(canary)

    def _guarded(self) -> None:
        try:
            self.compare()
        except DatabaseUnavailable:  # the next comparison is as good
            pass
        except Exception:
            log.exception("agent_canary_failed")

    def _compare(self, canary: Row) -> None:
        began = time.monotonic()
        seen = observations_of(canary, self.db.query(partial(rows.ended_runs, canary=canary)))
        figures = figures_of(seen)
        looks = max(canary["looks"], looks_due(min(figures["runs"].values())))
        worse_in = canary_test.worse_in(seen, seed=looks) if looks > canary["looks"] else None
        pause = max(EVERY_MS, int(LOAD * 1000 * (time.monotonic() - began)))
        values = {"looks": looks, "figures": figures, "worse_in": worse_in, "next_at": now_ms() + pause}

        def write(tx: Transaction) -> None:
            agent_versions.lock(tx, canary["agent"])
            if rows.save_comparison(tx, canary, **values) and worse_in is not None:
                self._end(tx, canary, "rolled_back", worse_in=worse_in)
                tx.after_commit(partial(_log_rolled_back, canary, worse_in, figures))

        self.db.transact(write)

    def _end(self, tx: Transaction, canary: Row, outcome: str, **why: str) -> None:
        if rows.end(tx, canary, outcome):
            told = {"version": canary["version"], "outcome": outcome, **why}
            record(tx, Action.AGENT_CANARY_ENDED, f"agent:{canary['agent']}", **told)
            tx.after_commit(partial(self.counted, canary["agent"], outcome))


def split_of(canary: Row) -> CanarySplit:
    return CanarySplit(canary["agent"], canary["n"], canary["share"])


def observations_of(canary: Row, runs: Sequence[Row]) -> list[Observation]:
    """Return the runs that the comparison is about: each side's sessions and users, under their version."""
    split, version = split_of(canary), {"canary": canary["version"], "control": canary["against"]}
    observations = []
    for run in runs:
        unit = run["session_id"] or run["user_id"]
        side = split.side(unit)
        if side is not None and run["agent_version"] == version[side]:
            failed = run["status"] == RunStatus.FAILED
            observations.append(Observation(unit, side == "canary", failed, run["cost_nano"], run["score"]))
    return observations


def figures_of(seen: Sequence[Observation]) -> dict[str, Any]:
    """Return runs, failures, mean cost of a run and feedback of both sides."""
    sides = [(side, [one for one in seen if one.is_canary == (side == "canary")]) for side in SIDES]
    return {
        "runs": {side: len(runs) for side, runs in sides},
        "failures": {side: sum(one.failed for one in runs) for side, runs in sides},
        "cost": {side: _mean_cost(runs) for side, runs in sides},
        "feedback": {side: _feedback(runs) for side, runs in sides},
    }


def _mean_cost(runs: Sequence[Observation]) -> str | None:
    return usd(sum(one.cost_nano for one in runs) // len(runs)) if runs else None


def _feedback(runs: Sequence[Observation]) -> dict[str, Any]:
    scores = [one.score for one in runs if one.score is not None]
    return {"ratings": len(scores), "mean": round(sum(scores) / len(scores), 3) if scores else None}


def _log_rolled_back(canary: Row, worse_in: str, figures: dict[str, Any]) -> None:
    told = {"agent": canary["agent"], "version": canary["version"], "worse_in": worse_in, **figures}
    log.warning("agent_canary_rolled_back", extra=told)
