"""Signing keys of tokens, by number; the newest is never deleted. `sealed` is a private key, encrypted."""

from __future__ import annotations

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import signing_keys

_INSERT = InsertOnce(signing_keys)
_ALL = sa.select(signing_keys).order_by(signing_keys.c.number)


def listed(tx: Transaction) -> list[Row]:
    """List all keys by number; few, as `expire` deletes those that verify no token any more."""
    return tx.rows(_ALL)


def insert(tx: Transaction, row: Row) -> bool:
    """Insert a key. False: another process has taken its number."""
    tx.execute(_INSERT, row)
    found = tx.row(sa.select(signing_keys.c.kid).where(signing_keys.c.number == row["number"]))
    return found is not None and found["kid"] == row["kid"]


def retire(tx: Transaction, before: int, verifies_until: int) -> None:
    """Let the keys with numbers below `before` verify until then (ms), or until an earlier end that they have."""
    end = signing_keys.c.verifies_until
    older = sa.update(signing_keys).where(
        signing_keys.c.number < before, sa.or_(end.is_(None), end > verifies_until)
    )
    tx.execute(older.values(verifies_until=verifies_until))


def expire(tx: Transaction, before: int, limit: int) -> int:
    """Delete at most `limit` keys that verify no token since `before` (ms); return how many."""
    old = sa.select(signing_keys.c.number).where(signing_keys.c.verifies_until < before).limit(limit)
    old = old.with_for_update(skip_locked=True)
    return tx.execute(sa.delete(signing_keys).where(signing_keys.c.number.in_(old)))
