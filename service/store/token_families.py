"""Token families, one per log-in. `current_jti` is the one unspent refresh token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from service.store import agent_stops, keys
from service.store import users as user_rows
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import api_keys, token_families, users, workspaces
from service.store.users import SIGN_IN_REFUSED
from service.types import now_ms

_INSERT = InsertOnce(token_families)
_LIVE = sa.select(token_families.c.id).where(
    token_families.c.id == sa.bindparam("id"),
    token_families.c.revoked_at.is_(None),
    token_families.c.expires_at > sa.bindparam("now"),
)
_OWNER = (
    sa.select(users, SIGN_IN_REFUSED)
    .join(token_families, token_families.c.user_id == users.c.id)
    .join(workspaces, workspaces.c.id == users.c.workspace_id)
    .where(token_families.c.id == sa.bindparam("id"))
)
_ROTATE = sa.update(token_families).where(
    token_families.c.id == sa.bindparam("family"),
    token_families.c.current_jti.in_([sa.bindparam("old"), sa.bindparam("new")]),
    token_families.c.revoked_at.is_(None),
    token_families.c.expires_at > sa.bindparam("now"),
)
_REVOKE = sa.update(token_families).where(token_families.c.revoked_at.is_(None))


@dataclass(frozen=True, slots=True)
class Revoked:
    """Revocations: ended families and marks of stopped agents, and digests of keys to look up again."""

    families: list[str]
    digests: list[str]


def insert(tx: Transaction, family: str, user_id: str, jti: str, *, now: int, expires_at: int) -> Row | None:
    """Insert a log-in; return its user as they are now, with `changed_at` of their workspace.

    None: they may not sign in. Their lock makes a change of their rights wait for this log-in, which it then ends, or
    this one for the change.
    """
    user = user_rows.hold(tx, user_id)
    if user is None:
        return None
    row = {"id": family, "user_id": user_id, "current_jti": jti, "created_at": now, "expires_at": expires_at}
    tx.execute(_INSERT, row)
    return user


def is_live(tx: Transaction, family: str) -> bool:
    return tx.row(_LIVE, {"id": family, "now": now_ms()}) is not None


def any_live(tx: Transaction) -> bool:
    now = now_ms()
    live = sa.and_(token_families.c.revoked_at.is_(None), token_families.c.expires_at > now)
    return tx.row(sa.select(token_families.c.id).where(live).limit(1)) is not None


def owner(tx: Transaction, family: str) -> Row | None:
    """Find the user of a family, whatever the state of both."""
    return tx.row(_OWNER, {"id": family})


def rotate(tx: Transaction, family: str, old: str, new: str) -> bool:
    """Spend the refresh token `old` for `new`. False: it is spent already, or the family has ended.

    One conditional update: of two concurrent uses of a token one loses. `new` may match, as the transaction may be run
    twice.
    """
    values = {"family": family, "old": old, "new": new, "now": now_ms()}
    return tx.execute(_ROTATE.values(current_jti=new), values) == 1


def revoke(tx: Transaction, family: str) -> bool:
    """End one family. False: it has ended already."""
    return tx.execute(_REVOKE.where(token_families.c.id == family).values(revoked_at=now_ms())) == 1


def revoke_all(
    tx: Transaction, user_id: str, marker: str, now: int, *, tokens_from: int | None = None
) -> Revoked:
    """End every family of a user; return the cached credentials to invalidate.

    `tokens_from` (ms): an issuer's tokens from before end too, though not seen yet; by default from before `now`.
    Inserts the revoked family `marker`, by which `distrusted` finds a user who has only keys. The same again where the
    transaction is run twice.
    """
    newest = now if tokens_from is None else tokens_from
    older = sa.or_(users.c.tokens_from.is_(None), users.c.tokens_from < newest)
    tx.execute(sa.update(users).where(users.c.id == user_id, older).values(tokens_from=newest))
    ended = _end(tx, token_families.c.user_id == user_id, now)
    row = {"id": marker, "user_id": user_id, "current_jti": "", "created_at": now}
    tx.execute(_INSERT, {**row, "expires_at": now, "revoked_at": now})
    return Revoked(ended, keys.digests(tx, api_keys.c.user_id == user_id))


def revoke_workspace(tx: Transaction, workspace_id: str, now: int) -> Revoked:
    """End every family of a workspace's users; return the cached credentials to invalidate.

    The workspace's `changed_at` ends an issuer's tokens that were not seen yet; by it `distrusted` finds the keys. The
    same again where the transaction is run twice.
    """
    members = sa.select(users.c.id).where(users.c.workspace_id == workspace_id)
    ended = _end(tx, token_families.c.user_id.in_(members), now)
    return Revoked(ended, keys.digests(tx, api_keys.c.user_id.in_(members)))


def _end(tx: Transaction, of_users: sa.ColumnElement[bool], now: int) -> list[str]:
    """End every family of some users, in the order of ids, as others may do; return those ended now."""
    live = sa.select(token_families.c.id).where(of_users, token_families.c.revoked_at.is_(None))
    live = live.order_by(token_families.c.id).with_for_update()
    tx.execute(_REVOKE.where(token_families.c.id.in_(live)).values(revoked_at=now))
    ended = tx.rows(sa.select(token_families.c.id).where(of_users, token_families.c.revoked_at == now))
    return [row["id"] for row in ended]


def distrusted(tx: Transaction, *, families_since: int, keys_since: int) -> Revoked:
    """Families revoked since a time (ms), and digests of keys revoked or changed, or with a changed user, since a time.

    A user has changed with their workspace too. With the families, marks of the agents that are stopped.
    """
    families = tx.rows(sa.select(token_families.c.id).where(token_families.c.revoked_at >= families_since))
    changed: Any = sa.select(token_families.c.user_id).where(token_families.c.revoked_at >= keys_since)
    # Read first: with a join, a database may look through all users for the workspaces that have changed, mostly none.
    disabled = tx.rows(sa.select(workspaces.c.id).where(workspaces.c.changed_at >= keys_since))
    if disabled:
        members = users.c.workspace_id.in_([row["id"] for row in disabled])
        changed = sa.union(changed, sa.select(users.c.id).where(members))
    found = (  # one after another: with OR, a database may look through all keys
        api_keys.c.revoked_at >= keys_since,
        api_keys.c.changed_at >= keys_since,
        api_keys.c.user_id.in_(changed),
    )
    of_keys = sa.union(*(sa.select(api_keys.c.id).where(condition) for condition in found))
    marks = [agent_stops.mark(row["agent"]) for row in agent_stops.every(tx)]
    return Revoked([row["id"] for row in families] + marks, keys.digests(tx, api_keys.c.id.in_(of_keys)))


def expire(tx: Transaction, before: int, limit: int) -> int:
    """Delete at most `limit` families whose refresh token expired before `before` (ms); return how many."""
    old = sa.select(token_families.c.id).where(token_families.c.expires_at < before).limit(limit)
    old = old.with_for_update(skip_locked=True)
    return tx.execute(sa.delete(token_families).where(token_families.c.id.in_(old)))
