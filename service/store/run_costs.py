"""Costs of runs that have ended."""

from __future__ import annotations

import sqlalchemy as sa

from service.store.database import Transaction
from service.store.schema import runs
from service.types import RunStatus


def recent(tx: Transaction, *, user_id: str, agent: str, limit: int) -> list[int]:
    """List what a user's last runs of an agent have cost, of those that succeeded; in nano-dollars, cheapest first."""
    last = sa.select(runs.c.status, runs.c.cost_nano).where(runs.c.user_id == user_id, runs.c.agent == agent)
    page = last.order_by(runs.c.id.desc()).limit(limit).subquery()
    found = tx.rows(sa.select(page.c.cost_nano).where(page.c.status == RunStatus.SUCCEEDED))
    return sorted(int(row["cost_nano"]) for row in found)
