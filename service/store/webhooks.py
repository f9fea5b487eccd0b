"""Rows of webhooks: whom to tell that a run has ended, and how far that has come."""

from __future__ import annotations

import sqlalchemy as sa

from service.store.base import InsertOnce, Row, Transaction
from service.store.schema import runs, webhooks

_OF_RUN = sa.select(webhooks).where(webhooks.c.run_id == sa.bindparam("run_id"))
_DUE = (
    sa.select(webhooks, runs.c.user_id, runs.c.status.label("run_status"), runs.c.finished_at)
    .join(runs, runs.c.id == webhooks.c.run_id)
    .where(webhooks.c.next_at <= sa.bindparam("now"), runs.c.finished_at.is_not(None))
    .order_by(webhooks.c.next_at)
    .limit(sa.bindparam("limit"))
)


def due_now(tx: Transaction, run_id: str, url: str, now: int) -> None:
    """The run has ended (perhaps once more): tell it from now on."""
    first = {"status": "pending", "attempts": 0, "next_at": now, "last_error": None, "delivered_at": None}
    tx.execute(InsertOnce(webhooks), {"run_id": run_id, "url": url, "created_at": now, **first})
    tx.execute(sa.update(webhooks).where(webhooks.c.run_id == run_id).values(**first))


def of_run(tx: Transaction, run_id: str) -> Row | None:
    return tx.row(_OF_RUN, {"run_id": run_id})


def due(tx: Transaction, now: int, limit: int) -> list[Row]:
    """Deliveries whose time has come, longest due first, with what is to be told."""
    return tx.rows(_DUE, {"now": now, "limit": limit})


def claim(tx: Transaction, row: Row, next_at: int) -> bool:
    """Take a due delivery for one attempt; nobody else tries before `next_at`. False: somebody has it."""
    mine = sa.update(webhooks).where(
        webhooks.c.run_id == row["run_id"],
        webhooks.c.status == "pending",
        webhooks.c.attempts == row["attempts"],
        webhooks.c.next_at == row["next_at"],
    )
    return tx.execute(mine.values(attempts=row["attempts"] + 1, next_at=next_at)) == 1


def delivered(tx: Transaction, row: Row, now: int) -> None:
    _settle(tx, row, {"status": "delivered", "next_at": None, "last_error": None, "delivered_at": now})


def missed(tx: Transaction, row: Row, error: str, *, final: bool) -> None:
    """The attempt came to nothing; after a `final` one there is no other."""
    values = {"status": "failed", "next_at": None} if final else {}
    _settle(tx, row, {**values, "last_error": error[:256]})


def _settle(tx: Transaction, row: Row, values: dict[str, object]) -> None:
    # Of the claimed attempt only: the run may have been sent off again, and ended again, meanwhile.
    claimed = sa.update(webhooks).where(
        webhooks.c.run_id == row["run_id"], webhooks.c.attempts == row["attempts"] + 1
    )
    tx.execute(claimed.values(**values))
