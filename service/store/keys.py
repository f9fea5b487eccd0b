"""API keys, stored as digests only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.errors import TooMany
from service.store import run_limits
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import api_keys, users, workspaces
from service.store.users import SIGN_IN_REFUSED
from service.store.visibility import AGENTS
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
_WITH_USER = (
    sa.select(
        api_keys.c.id,
        api_keys.c.user_id,
        api_keys.c.scopes,
        api_keys.c.digest,
        api_keys.c.expires_at,
        api_keys.c.previous_expires_at,
        api_keys.c.revoked_at,
        users.c.username,
        users.c.role,
        *(users.c[name] for name in run_limits.COLUMNS),
        *(api_keys.c[name].label(f"key_{name}") for name in run_limits.COLUMNS),
        users.c.workspace_id,
        SIGN_IN_REFUSED,
    )
    .join(users, users.c.id == api_keys.c.user_id)
    .join(workspaces, workspaces.c.id == users.c.workspace_id)
)
_BY_DIGEST = _WITH_USER.where(
    sa.or_(api_keys.c.digest == sa.bindparam("digest"), api_keys.c.previous_digest == sa.bindparam("digest"))
)
_BY_ID = _WITH_USER.where(api_keys.c.id == sa.bindparam("id"))


def insert(tx: Transaction, row: dict[str, Any]) -> None:
    """Insert a key. Raises `TooMany` where its user has `MAX_KEYS` valid ones."""
    # The lock serialises concurrent inserts, so that the second counts the first.
    tx.row(sa.select(users.c.id).where(users.c.id == row["user_id"]).with_for_update(key_share=True))
    others = tx.row(_VALID, {"user_id": row["user_id"], "id": row["id"], "now": now_ms()})
    if others is not None and others["n"] >= MAX_KEYS:
        raise TooMany(f"You have {MAX_KEYS} API keys: revoke one first.")
    tx.execute(_INSERT, tx.sealed(api_keys, row, row["user_id"]))


def by_digest(tx: Transaction, digest: str) -> Row | None:
    """Find a key by its secret or the one before, with its user, whatever the state of both."""
    return tx.row(_BY_DIGEST, {"digest": digest})


def by_id(tx: Transaction, key_id: str) -> Row | None:
    """Find a key with its user, whatever the state of both."""
    return tx.row(_BY_ID, {"id": key_id})


def role(tx: Transaction, user_id: str, key_id: str | None) -> str:
    """Return the role with which a user or their key acts now; a key for some agents acts as an ordinary user.

    Empty: there is no such user.
    """
    key = sa.and_(api_keys.c.id == sa.bindparam("key"), api_keys.c.user_id == users.c.id)
    query = sa.select(users.c.role, api_keys.c.scopes).outerjoin(api_keys, key).where(users.c.id == user_id)
    row = tx.row(query, {"key": key_id})
    if row is None:
        return ""
    return "user" if any(scope.startswith(AGENTS) for scope in row["scopes"] or ()) else str(row["role"])


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


def revoke(tx: Transaction, key_id: str, user_id: str) -> list[str]:
    """Revoke a user's key; return the digests of its secrets, none when the user has no such key."""
    of_user = sa.and_(api_keys.c.id == key_id, api_keys.c.user_id == user_id)
    tx.execute(
        sa.update(api_keys).where(of_user, api_keys.c.revoked_at.is_(None)).values(revoked_at=now_ms())
    )
    return digests(tx, of_user)


def change(tx: Transaction, key_id: str, user_id: str, changes: dict[str, Any]) -> Row | None:
    """Change columns of a key, to be looked up again; return the key. None: the user has no such key."""
    valid = _valid(key_id, user_id)
    tx.execute(sa.update(api_keys).where(valid).values(**changes, changed_at=now_ms()))
    return tx.row(sa.select(api_keys).where(valid))


def rotate(
    tx: Transaction, key_id: str, user_id: str, secret: dict[str, Any]
) -> tuple[Row, list[str]] | None:
    """Give a key another secret, and its old one until `previous_expires_at` of `secret`.

    Return the key, and digests that are to be looked up again; None when the user has no such key.
    """
    valid = _valid(key_id, user_id)
    row = tx.row(sa.select(api_keys).where(valid).with_for_update())
    if row is None:
        return None
    old = digests_of(row)
    if row["digest"] != secret["digest"]:  # else by this same write: the answer to an earlier commit was lost
        secret = {**secret, "previous_digest": row["digest"]}
        tx.execute(sa.update(api_keys).where(valid).values(**secret))
    return {**row, **secret}, old


def used(tx: Transaction, key_ids: Sequence[str], at: int, precision: int) -> None:
    """Note the use of keys, where the last one that was noted is `precision` ms ago."""
    stale = sa.or_(api_keys.c.last_used_at.is_(None), api_keys.c.last_used_at <= at - precision)
    noted = sa.select(api_keys.c.id).where(api_keys.c.id.in_(key_ids), stale).order_by(api_keys.c.id)
    noted = noted.with_for_update(skip_locked=True)  # another process notes the same use
    tx.execute(sa.update(api_keys).where(api_keys.c.id.in_(noted)).values(last_used_at=at))


def digests(tx: Transaction, *where: sa.ColumnElement[bool]) -> list[str]:
    """List the digests of all secrets of some keys."""
    found = tx.rows(sa.select(api_keys.c.digest, api_keys.c.previous_digest).where(*where))
    return [digest for row in found for digest in digests_of(row)]


def digests_of(row: Row) -> list[str]:
    """Return the digests of a key's secrets."""
    return [digest for digest in (row["digest"], row["previous_digest"]) if digest is not None]


def _valid(key_id: str, user_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(api_keys.c.id == key_id, api_keys.c.user_id == user_id, api_keys.c.revoked_at.is_(None))
