"""Canaries: versions of agents on trial with a share of the traffic, and the runs by which they are compared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from service.ids import first_id
from service.store import forks
from service.store.database import Row, Transaction
from service.store.schema import agent_canaries, feedback, runs
from service.types import RunStatus, now_ms

MOST_RUNS = 200_000  # read for one comparison, the first ones
FRESH = sa.exists().where(agent_canaries.c.changed_at > sa.bindparam("pins_after"))
_OPEN = agent_canaries.c.ended_at.is_(None)
ANY_DUE = sa.exists().where(_OPEN, agent_canaries.c.next_at <= sa.bindparam("now"))
_MADE = sa.or_(runs.c.cache == "miss", runs.c.cache == "bypass")  # not answered from the cache
_ENDED = sa.or_(runs.c.status == RunStatus.SUCCEEDED, runs.c.status == RunStatus.FAILED)


def last(tx: Transaction, agent: str) -> Row | None:
    """Return the last canary of an agent, open or ended."""
    query = sa.select(agent_canaries).where(agent_canaries.c.agent == agent)
    return tx.row(query.order_by(agent_canaries.c.n.desc()).limit(1))


def open_of(tx: Transaction, agent: str) -> Row | None:
    """Return the canary of an agent that has not ended."""
    found = last(tx, agent)
    return None if found is None or found["ended_at"] is not None else found


def open_ones(tx: Transaction) -> list[Row]:
    return tx.rows(sa.select(agent_canaries).where(_OPEN).order_by(agent_canaries.c.agent))


def due(tx: Transaction) -> list[Row]:
    """List the canaries whose comparison is due."""
    return tx.rows(sa.select(agent_canaries).where(_OPEN, agent_canaries.c.next_at <= now_ms()))


def start(tx: Transaction, values: Mapping[str, Any], next_at: int) -> None:
    """Start a canary. The caller holds the lock of the agent's versions."""
    now, before = now_ms(), last(tx, values["agent"])
    times = {"started_at": now, "changed_at": now, "next_at": next_at}
    number = before["n"] + 1 if before else 1
    tx.execute(sa.insert(agent_canaries).values(**values, **times, n=number, looks=0))


def end(tx: Transaction, canary: Row, outcome: str) -> bool:
    """End a canary. False: it has ended already."""
    now = now_ms()
    values = {"outcome": outcome, "ended_at": now, "changed_at": now}
    return tx.execute(_update(canary).values(**values)) == 1


def take(tx: Transaction, canary: Row, next_at: int) -> bool:
    """Take over a comparison that is due. False: another process has."""
    unchanged = agent_canaries.c.next_at == canary["next_at"]
    return tx.execute(_update(canary).where(unchanged).values(next_at=next_at)) == 1


def save_comparison(tx: Transaction, canary: Row, **values: Any) -> bool:
    """Save a comparison. False: the canary has ended, or another process has made this look."""
    unchanged = agent_canaries.c.looks == canary["looks"]
    return tx.execute(_update(canary).where(unchanged).values(**values)) == 1


def ended_runs(tx: Transaction, canary: Row) -> list[Row]:
    """List the runs of both versions since the start that were made and have ended, with their feedback."""
    version = sa.or_(runs.c.agent_version == canary["version"], runs.c.agent_version == canary["against"])
    columns = (runs.c.session_id, runs.c.user_id, runs.c.agent_version, runs.c.status, runs.c.cost_nano)
    query = sa.select(*columns, feedback.c.score).outerjoin(feedback, feedback.c.run_id == runs.c.id)
    began = (runs.c.agent == canary["agent"], runs.c.id >= first_id("run", canary["started_at"]))
    query = query.where(*began, version, _ENDED, _MADE, runs.c.door != forks.DOOR)  # replays are no traffic
    return tx.rows(query.order_by(runs.c.id).limit(MOST_RUNS))


def _update(canary: Row) -> sa.Update:
    """Update of a canary that has not ended."""
    of_it = (agent_canaries.c.agent == canary["agent"], agent_canaries.c.n == canary["n"])
    return sa.update(agent_canaries).where(*of_it, _OPEN)
