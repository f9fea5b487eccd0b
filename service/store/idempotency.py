"""Rows of idempotency keys: which run, or which answer, a caller's key stands for."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import idempotency
from service.store.statement import Statement
from service.types import now_ms

_INSERT = Statement(InsertOnce(idempotency))
_FIND = Statement(
    sa.select(idempotency).where(
        idempotency.c.user_id == sa.bindparam("user_id"), idempotency.c.key == sa.bindparam("key")
    )
)


def claim(
    tx: Transaction, user_id: str, key: str, fingerprint: str, run_id: str | None, expires_at: int
) -> Row | None:
    """Take the key. None: it is ours; else the row of whoever had it first."""
    now = now_ms()
    mine = {
        "user_id": user_id,
        "key": key,
        "fingerprint": fingerprint,
        "run_id": run_id,
        "created_at": now,
        "expires_at": expires_at,
    }
    while tx.execute(_INSERT, mine) != 1:
        # One conditional update: of several that find an expired key, one takes it.
        expired = sa.update(idempotency).where(
            idempotency.c.user_id == user_id, idempotency.c.key == key, idempotency.c.expires_at <= now
        )
        if tx.execute(expired.values(**mine, status=None, body=None)) == 1:
            break
        if (first := find(tx, user_id, key)) is not None:
            return first
    return None


def find(tx: Transaction, user_id: str, key: str) -> Row | None:
    return tx.row(_FIND, {"user_id": user_id, "key": key})


def pass_on(tx: Transaction, user_id: str, key: str, run_id: str, new_run_id: str, expires_at: int) -> str:
    """Tie the key of `run_id` to a new run instead; the run it stands for now, which another may have tied first."""
    mine = (idempotency.c.user_id == user_id, idempotency.c.key == key)
    taken = {"run_id": new_run_id, "created_at": now_ms(), "expires_at": expires_at}
    if tx.execute(sa.update(idempotency).where(*mine, idempotency.c.run_id == run_id).values(**taken)) == 1:
        return new_run_id
    row = find(tx, user_id, key)
    return row["run_id"] if row is not None else run_id


def answer(tx: Transaction, user_id: str, key: str, status: int, body: Any) -> None:
    """Keep the answer given under a key, for whoever asks again."""
    mine = sa.update(idempotency).where(idempotency.c.user_id == user_id, idempotency.c.key == key)
    tx.execute(mine.values(status=status, body=body))


def expire(tx: Transaction, limit: int) -> int:
    """Delete what a day has passed over, at most `limit`; how many."""
    whose = (idempotency.c.user_id, idempotency.c.key)
    old = sa.select(*whose).where(idempotency.c.expires_at < now_ms()).limit(limit)
    old = old.with_for_update(skip_locked=True)
    return tx.execute(sa.delete(idempotency).where(sa.tuple_(*whose).in_(old)))
