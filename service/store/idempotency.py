"""Idempotency keys: the run or the stored answer of a caller's key."""

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
    """Claim a key. None: claimed; else the row of its first owner."""
    now, stored = now_ms(), tx.digest(user_id, key)
    times = {"created_at": now, "expires_at": expires_at}
    row = {"user_id": user_id, "key": stored, "fingerprint": fingerprint, "run_id": run_id, **times}
    while tx.execute(_INSERT, row, expect=1) != 1:
        # One conditional update: of several that find an expired key, one claims it.
        expired = sa.update(idempotency).where(
            idempotency.c.user_id == user_id, idempotency.c.key == stored, idempotency.c.expires_at <= now
        )
        if tx.execute(expired.values(**row, status=None, body=None)) == 1:
            break
        if (first := find(tx, user_id, key)) is not None:
            return first
    return None


def find(tx: Transaction, user_id: str, key: str) -> Row | None:
    return tx.row(_FIND, {"user_id": user_id, "key": tx.digest(user_id, key)})


def move(tx: Transaction, user_id: str, key: str, run_id: str, new_run_id: str, expires_at: int) -> str:
    """Move the key from `run_id` to a new run, until `expires_at` (ms); return the id of the run that the key has then.

    Another caller may have moved the key first.
    """
    of_key = (idempotency.c.user_id == user_id, idempotency.c.key == tx.digest(user_id, key))
    values = {"run_id": new_run_id, "created_at": now_ms(), "expires_at": expires_at}
    if (
        tx.execute(sa.update(idempotency).where(*of_key, idempotency.c.run_id == run_id).values(**values))
        == 1
    ):
        return new_run_id
    row = find(tx, user_id, key)
    return row["run_id"] if row is not None else run_id


def answer(tx: Transaction, user_id: str, key: str, status: int, body: Any) -> None:
    """Store the answer of a key, for replays."""
    of_key = (idempotency.c.user_id == user_id, idempotency.c.key == tx.digest(user_id, key))
    tx.execute(
        sa.update(idempotency)
        .where(*of_key)
        .values(tx.sealed(idempotency, {"status": status, "body": body}, user_id))
    )


def expire(tx: Transaction, limit: int) -> int:
    """Delete at most `limit` expired keys; return how many."""
    columns = (idempotency.c.user_id, idempotency.c.key)
    old = sa.select(*columns).where(idempotency.c.expires_at < now_ms()).limit(limit)
    old = old.with_for_update(skip_locked=True)
    return tx.execute(sa.delete(idempotency).where(sa.tuple_(*columns).in_(old)))
