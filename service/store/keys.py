"""API keys, stored as digests only."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.errors import TooMany
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import api_keys, users, workspaces
from service.store.users import SIGN_IN_REFUSED
from service.types import now_ms

MAX_KEYS = 100  # valid keys of one user
_INSERT = InsertOnce(api_keys)
_VALID = (
    sa.select(sa.func.count().label("n"))
    .select_from(api_keys)
    .where(
        api_keys.c.user_id == sa.bindparam("user_id"),
        api_keys.c.id != sa.bindparam("id"),
        api_keys.c.revoked_at.is_(None),
        sa.or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > sa.bindparam("now")),
    )
)
_BY_DIGEST = (
    sa.select(
        api_keys.c.id,
        api_keys.c.user_id,
        api_keys.c.scopes,
        api_keys.c.expires_at,
        api_keys.c.revoked_at,
        users.c.username,
        users.c.role,
        users.c.limit_runs,
        users.c.workspace_id,
        SIGN_IN_REFUSED,
    )
    .join(users, users.c.id == api_keys.c.user_id)
    .join(workspaces, workspaces.c.id == users.c.workspace_id)
    .where(api_keys.c.digest == sa.bindparam("digest"))
)


def insert(tx: Transaction, row: dict[str, Any]) -> None:
    """Insert a key. Raises `TooMany` where its user has `MAX_KEYS` valid ones."""
    # The lock serialises concurrent inserts, so that the second counts the first.
    tx.row(sa.select(users.c.id).where(users.c.id == row["user_id"]).with_for_update(key_share=True))
    others = tx.row(_VALID, {"user_id": row["user_id"], "id": row["id"], "now": now_ms()})
    if others is not None and others["n"] >= MAX_KEYS:
        raise TooMany(f"You have {MAX_KEYS} API keys: revoke one first.")
    tx.execute(_INSERT, row)


def by_digest(tx: Transaction, digest: str) -> Row | None:
    """Find a key with its user, whatever the state of both."""
    return tx.row(_BY_DIGEST, {"digest": digest})


def page(
    tx: Transaction, user_id: str, *, limit: int, after: str | None, only: str | None = None
) -> list[Row]:
    """List a user's keys that are not revoked, or the `only` one of them, oldest first."""
    query = sa.select(api_keys).where(api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None))
    if only is not None:
        query = query.where(api_keys.c.id == only)
    if after is not None:
        query = query.where(api_keys.c.id > after)
    return tx.rows(query.order_by(api_keys.c.id).limit(limit))


def revoke(tx: Transaction, key_id: str, user_id: str) -> str | None:
    """Revoke a user's key; return its digest, or None when the user has no such key."""
    of_user = sa.and_(api_keys.c.id == key_id, api_keys.c.user_id == user_id)
    row = tx.row(sa.select(api_keys.c.digest).where(of_user))
    if row is None:
        return None
    tx.execute(
        sa.update(api_keys).where(of_user, api_keys.c.revoked_at.is_(None)).values(revoked_at=now_ms())
    )
    return str(row["digest"])
