"""Rows of API keys. The key itself is kept nowhere: only its digest."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.store.base import InsertOnce, Row, Transaction
from service.store.schema import api_keys, users
from service.types import now_ms

_INSERT = InsertOnce(api_keys)
_BY_DIGEST = (
    sa.select(
        api_keys.c.id,
        api_keys.c.user_id,
        api_keys.c.scopes,
        api_keys.c.expires_at,
        api_keys.c.revoked_at,
        users.c.username,
        users.c.role,
        users.c.disabled,
        users.c.limit_runs,
    )
    .join(users, users.c.id == api_keys.c.user_id)
    .where(api_keys.c.digest == sa.bindparam("digest"))
)


def insert(tx: Transaction, row: dict[str, Any]) -> None:
    tx.execute(_INSERT, row)


def by_digest(tx: Transaction, digest: str) -> Row | None:
    """A key with its user, whatever the state of both."""
    return tx.row(_BY_DIGEST, {"digest": digest})


def page(tx: Transaction, user_id: str, *, limit: int, after: str | None) -> list[Row]:
    """A user's keys that are not revoked, oldest first."""
    mine = sa.select(api_keys).where(api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None))
    query = mine.order_by(api_keys.c.id).limit(limit)
    return tx.rows(query if after is None else query.where(api_keys.c.id > after))


def revoke(tx: Transaction, key_id: str, user_id: str) -> str | None:
    """End a user's key; its digest, or None when the user has no such key."""
    mine = sa.and_(api_keys.c.id == key_id, api_keys.c.user_id == user_id)
    row = tx.row(sa.select(api_keys.c.digest).where(mine))
    if row is None:
        return None
    tx.execute(sa.update(api_keys).where(mine, api_keys.c.revoked_at.is_(None)).values(revoked_at=now_ms()))
    return str(row["digest"])
