"""Published versions of agents, and the pins that say which of them is served."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.store import agent_canaries, scope_locks
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import UNFINISHED, agent_pins, agent_versions, runs
from service.types import now_ms

MOST = 50  # versions kept of an agent; older ones are deleted unless pinned lately
FRESH_MS = 60_000  # time in which each process notices a new pin at its sweep
FRESH = sa.exists().where(agent_pins.c.pinned_at > sa.bindparam("pins_after"))
_LISTED = [column for column in agent_versions.c if column.key not in ("files", "signature")]
_NUMBER = sa.func.max(agent_pins.c.n).label("n")
_LATEST = sa.select(agent_pins.c.agent, _NUMBER).group_by(agent_pins.c.agent).subquery()


def insert(tx: Transaction, row: dict[str, Any]) -> bool:
    """Store a version. False: it is stored already."""
    lock(tx, row["agent"])
    return tx.execute(InsertOnce(agent_versions), row) == 1


def get(tx: Transaction, agent: str, version: str) -> Row | None:
    return tx.row(sa.select(agent_versions).where(*_key(agent, version)))


def is_published(tx: Transaction, agent: str, version: str) -> bool:
    return tx.row(sa.select(agent_versions.c.version).where(*_key(agent, version))) is not None


def listed(tx: Transaction, agent: str) -> list[Row]:
    """List an agent's versions without their files, newest first."""
    query = sa.select(*_LISTED).where(agent_versions.c.agent == agent)
    return tx.rows(query.order_by(agent_versions.c.published_at.desc(), agent_versions.c.version))


def pinned(tx: Transaction) -> dict[str, str | None]:
    """Return the version that is served of each agent that was ever pinned; None: that of its folder."""
    same = sa.and_(agent_pins.c.agent == _LATEST.c.agent, agent_pins.c.n == _LATEST.c.n)
    query = sa.select(agent_pins.c.agent, agent_pins.c.version).select_from(agent_pins.join(_LATEST, same))
    return {row["agent"]: row["version"] for row in tx.rows(query)}


def last_pins(tx: Transaction, agent: str, most: int) -> list[Row]:
    """List the last pins of an agent, newest first."""
    query = sa.select(agent_pins).where(agent_pins.c.agent == agent)
    return tx.rows(query.order_by(agent_pins.c.n.desc()).limit(most))


def pin(tx: Transaction, agent: str, version: str | None, by: str | None) -> None:
    """Serve a version of an agent from now on; None: that of its folder. The caller holds the `lock`."""
    last = last_pins(tx, agent, 1)
    number = last[0]["n"] + 1 if last else 1
    values = {"agent": agent, "n": number, "version": version, "pinned_by": by, "pinned_at": now_ms()}
    tx.execute(sa.insert(agent_pins).values(**values))


def lock(tx: Transaction, agent: str) -> None:
    """Let no other transaction publish or pin a version of an agent until this one ends."""
    scope_locks.own(tx, f"versions:{agent}")


def trim(tx: Transaction, agent: str) -> None:
    """Delete the oldest versions beyond `MOST`, but for those of the last pins and canary."""
    kept = {row["version"] for row in last_pins(tx, agent, MOST)}
    if (canary := agent_canaries.last(tx, agent)) is not None:
        kept.add(canary["version"])
    for row in listed(tx, agent)[MOST:]:
        if row["version"] not in kept:
            tx.execute(sa.delete(agent_versions).where(*_key(agent, row["version"])))


def in_use(tx: Transaction, agent: str) -> set[str]:
    """Return the versions of the last two pins, of an open canary, and of runs that have not ended."""
    found = {pin["version"] for pin in last_pins(tx, agent, 2)}
    if (canary := agent_canaries.open_of(tx, agent)) is not None:
        found |= {canary["version"], canary["against"]}
    of_it = sa.text(f"runs.{UNFINISHED}"), runs.c.agent == agent
    found |= {
        row["agent_version"] for row in tx.rows(sa.select(runs.c.agent_version).where(*of_it).distinct())
    }
    return found - {None}


def _key(agent: str, version: str) -> tuple[sa.ColumnElement[bool], ...]:
    return agent_versions.c.agent == agent, agent_versions.c.version == version
