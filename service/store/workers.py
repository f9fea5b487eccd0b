"""Who is alive: one row per worker process. Its lease covers every run it drives."""

from __future__ import annotations

import sqlalchemy as sa

from service.store.database import Transaction, clock_ms
from service.store.schema import workers
from service.types import now_ms


def register(tx: Transaction, worker_id: str, kind: str, host: str, pid: int, lease_ms: int) -> None:
    tx.execute(
        sa.insert(workers).values(
            id=worker_id,
            kind=kind,
            host=host,
            pid=pid,
            started_at=now_ms(),
            alive_until=clock_ms() + lease_ms,
        )
    )


def renew(tx: Transaction, worker_id: str, lease_ms: int) -> bool:
    """False: the row is gone (this worker was taken for dead and swept away)."""
    statement = sa.update(workers).where(workers.c.id == worker_id)
    return tx.execute(statement.values(alive_until=clock_ms() + lease_ms)) == 1


def retire(tx: Transaction, worker_id: str) -> None:
    """This worker stops: what it still drives is free at once."""
    tx.execute(sa.delete(workers).where(workers.c.id == worker_id))


def alive(tx: Transaction, kind: str) -> int:
    """How many workers of a kind hold a lease."""
    query = sa.select(sa.func.count()).select_from(workers)
    row = tx.row(query.where(workers.c.kind == kind, workers.c.alive_until > clock_ms()))
    return int(row["count_1"]) if row else 0


def sweep(tx: Transaction, grace_ms: int) -> None:
    """Forget workers whose lease ended long ago; what they drove is free all the same."""
    gone = sa.select(workers.c.id).where(workers.c.alive_until < clock_ms() - grace_ms)
    tx.execute(sa.delete(workers).where(workers.c.id.in_(gone.with_for_update(skip_locked=True))))
