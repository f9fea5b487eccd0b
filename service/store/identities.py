"""Identities of an OpenID Connect issuer: who of its users (`subject`) is which user here."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from service.errors import Conflict
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import identities, users, workspaces
from service.store.users import SIGN_IN_REFUSED
from service.types import now_ms

_INSERT = InsertOnce(identities)
_IS = sa.and_(
    identities.c.issuer == sa.bindparam("of_issuer"), identities.c.subject == sa.bindparam("of_subject")
)
_FIND = (
    sa.select(users, SIGN_IN_REFUSED, workspaces.c.changed_at, identities.c.roles_at)
    .join(identities, identities.c.user_id == users.c.id)
    .join(workspaces, workspaces.c.id == users.c.workspace_id)
    .where(_IS)
)
_OWNER = sa.select(identities.c.user_id).where(_IS)
_LINK = sa.update(identities).where(_IS)
_NEWER = _LINK.where(identities.c.roles_at < sa.bindparam("at"))


class Identity(NamedTuple):
    issuer: str
    subject: str

    def named(self) -> dict[str, Any]:
        return {"of_issuer": self.issuer, "of_subject": self.subject}


def find(tx: Transaction, identity: Identity) -> Row | None:
    """Find the user of an identity, with `roles_at` and their workspace's `changed_at`; `refused`: may not sign in."""
    return tx.row(_FIND, identity.named())


def insert(tx: Transaction, identity: Identity, user_id: str, roles_at: int) -> None:
    """Give an identity to a user, unless it has one."""
    row = {**identity._asdict(), "user_id": user_id, "roles_at": roles_at, "created_at": now_ms()}
    tx.execute(_INSERT, row)


def owner(tx: Transaction, identity: Identity) -> str | None:
    """Find the id of an identity's user."""
    row = tx.row(_OWNER, identity.named())
    return None if row is None else str(row["user_id"])


def link(tx: Transaction, identity: Identity, user_id: str, owner_id: str | None) -> None:
    """Give an identity to a user. Raises `Conflict` where it is no longer its `owner`'s, as read before."""
    insert(tx, identity, user_id, 0)
    of_owner = _LINK.where(identities.c.user_id == (owner_id or user_id))
    if tx.execute(of_owner.values(user_id=user_id, roles_at=0), identity.named()) != 1:
        raise Conflict("This identity was just given to another user; link it again.")


def keep_roles_at(tx: Transaction, identity: Identity, at: int) -> None:
    """Remember that a token issued at `at` (ms) set the role, unless a newer one has."""
    tx.execute(_NEWER.values(roles_at=sa.bindparam("at")), {**identity.named(), "at": at})
