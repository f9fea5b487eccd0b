"""Log-in or API key behind a change, held in its transaction: its end comes before the change, or waits for it."""

from __future__ import annotations

import sqlalchemy as sa

from service.store.actor import Actor
from service.store.database import Transaction
from service.store.schema import api_keys, token_families, users, workspaces
from service.store.users import SIGN_IN_REFUSED
from service.types import now_ms

# Locked with FOR SHARE, which waits for a revocation under way, and then sees it.
_LOG_IN = (
    sa.select(token_families.c.id)
    .where(
        token_families.c.id == sa.bindparam("id"),
        token_families.c.revoked_at.is_(None),
        token_families.c.expires_at > sa.bindparam("now"),
    )
    .with_for_update(read=True)
)
_KEY = (
    sa.select(users.c.role, SIGN_IN_REFUSED)
    .join(workspaces, workspaces.c.id == users.c.workspace_id)
    .join(api_keys, api_keys.c.user_id == users.c.id)
    .where(api_keys.c.id == sa.bindparam("id"), api_keys.c.revoked_at.is_(None))
    .with_for_update(read=True, of=[workspaces, users, api_keys])  # in the order of all locks
)


def hold_before_change(tx: Transaction, actor: Actor, user_id: str) -> bool:
    """Lock a user who is to be changed, then the actor with their log-in or key, as `hold` does.

    Before the change, as it may give back a role that the actor has lost. Both users are locked in the order of ids:
    two who change each other, or one who is changed meanwhile, wait in turn.
    """
    if actor.role is None or actor.user_id is None:
        return True
    both = sorted({user_id, actor.user_id})
    of_both = sa.select(users.c.workspace_id).where(users.c.id.in_(both))
    for table, ids in ((workspaces, of_both), (users, both)):
        rows = sa.select(table.c.id).where(table.c.id.in_(ids)).order_by(table.c.id)
        tx.rows(rows.with_for_update(key_share=True))
    return hold(tx, actor)


def hold(tx: Transaction, actor: Actor) -> bool:
    """Lock the log-in or key of a request's actor until the transaction ends; nothing more to do if it is locked.

    False: it has ended, or its user has lost the role with which the request was admitted.
    """
    tx.credentials_held = tx.credentials_held or _holds(tx, actor)
    return tx.credentials_held


def _holds(tx: Transaction, actor: Actor) -> bool:
    if actor.family is not None:
        return tx.row(_LOG_IN, {"id": actor.family, "now": now_ms()}) is not None
    if actor.role is None:  # no request: a command, a run, a sign-in
        return True
    row = tx.row(_KEY, {"id": actor.key_id})
    return row is not None and not row["refused"] and actor.role in ("user", row["role"])
