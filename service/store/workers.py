"""Worker processes and their leases: one row each; a lease covers every run the worker executes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction, clock_ms
from service.store.schema import workers
from service.types import now_ms

FORGET_AFTER_MS = 3_600_000  # from the end of its lease until a dead worker's row is deleted
DEAD = sa.select(workers.c.id).where(workers.c.alive_until < clock_ms() - FORGET_AFTER_MS)


def register(tx: Transaction, worker_id: str, kind: str, host: str, pid: int, lease_ms: int) -> None:
    """Insert a worker with a lease of `lease_ms` from now."""
    values = {"id": worker_id, "kind": kind, "host": host, "pid": pid, "started_at": now_ms()}
    tx.execute(InsertOnce(workers).values(**values, alive_until=clock_ms() + lease_ms))


def renew(tx: Transaction, worker_id: str, lease_ms: int, state: Mapping[str, Any] | None = None) -> bool:
    """Renew a lease; `state`: what the worker tells of itself. False: the row is gone, it was taken for dead."""
    statement = sa.update(workers).where(workers.c.id == worker_id)
    return tx.execute(statement.values(alive_until=clock_ms() + lease_ms, state=state)) == 1


def retire(tx: Transaction, worker_id: str) -> None:
    """Delete a stopping worker: its runs can be claimed at once."""
    tx.execute(sa.delete(workers).where(workers.c.id == worker_id))


def alive(tx: Transaction, kind: str) -> int:
    """Count workers of a kind with a valid lease."""
    query = sa.select(sa.func.count()).select_from(workers)
    row = tx.row(query.where(workers.c.kind == kind, workers.c.alive_until > clock_ms()))
    return int(row["count_1"]) if row else 0


def listed(tx: Transaction, limit: int) -> list[Row]:
    """List workers, the newest first; `alive`: whether their lease is valid, for `lease_ms`. Dead ones stay an hour."""
    alive = (workers.c.alive_until > clock_ms()).label("alive")
    left = (workers.c.alive_until - clock_ms()).label("lease_ms")
    return tx.rows(sa.select(workers, alive, left).order_by(workers.c.started_at.desc()).limit(limit))


def sweep(tx: Transaction) -> None:
    """Delete workers that have been dead for long: their runs could be claimed since."""
    tx.execute(sa.delete(workers).where(workers.c.id.in_(DEAD.with_for_update(skip_locked=True))))
