"""Users table. Deletion anonymises the row and keeps it: runs, the ledger and the audit refer to it."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import Any

import sqlalchemy as sa

from service.errors import Conflict
from service.store import sign_in_addresses
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import identities, mcp_credentials, users, workspaces
from service.store.visibility import in_workspace

DELETED = "deleted"  # role of a deleted user
_INSERT = InsertOnce(users)
_BY_ID = sa.select(users).where(users.c.id == sa.bindparam("id"), users.c.role != DELETED)
# Refused while either is disabled.
SIGN_IN_REFUSED = sa.or_(users.c.disabled, workspaces.c.disabled).label("refused")
_BY_NAME = (
    sa.select(users, SIGN_IN_REFUSED, workspaces.c.changed_at)
    .join(workspaces, workspaces.c.id == users.c.workspace_id)
    .where(
        workspaces.c.name == sa.bindparam("workspace"),
        users.c.username == sa.bindparam("username"),
        users.c.role != DELETED,
    )
)
_WITH_WORKSPACE = (
    sa.select(users, SIGN_IN_REFUSED, workspaces.c.changed_at)
    .join(workspaces, workspaces.c.id == users.c.workspace_id)
    .where(users.c.id == sa.bindparam("id"))
)
_HELD = _WITH_WORKSPACE.with_for_update(read=True, of=[workspaces, users])  # in the order of all locks
_WORKSPACE = sa.select(users.c.workspace_id).where(users.c.id == sa.bindparam("id"))


def is_refused(user_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Condition for a user who is deleted or disabled, or whose workspace is."""
    there = users.join(workspaces, workspaces.c.id == users.c.workspace_id)
    refused = sa.or_(users.c.disabled, workspaces.c.disabled)
    return sa.exists().select_from(there).where(users.c.id == user_id, refused)


def refused(tx: Transaction, user_id: str) -> bool:
    """Return whether a user is deleted or disabled, or their workspace is."""
    row = tx.row(sa.select(is_refused(sa.literal(user_id)).label("refused")))
    return row is not None and bool(row["refused"])


def hold(tx: Transaction, user_id: str) -> Row | None:
    """Lock a user until the transaction ends, so that a change of their rights waits; return them as they are now.

    None: they are deleted or disabled, or their workspace is.
    """
    row = tx.row(_HELD, {"id": user_id})
    return None if row is None or row["refused"] else row


def admitted(tx: Transaction, user_id: str) -> Row | None:
    """Find a user. None: they are deleted or disabled, or their workspace is."""
    row = tx.row(_WITH_WORKSPACE, {"id": user_id})
    return None if row is None or row["refused"] else row


def insert(tx: Transaction, row: dict[str, Any]) -> None:
    """Insert a user. Raises `Conflict` when the name is taken."""
    tx.execute(_INSERT, row)
    if get(tx, row["id"]) is None:  # drivers do not agree on the row count of an insert
        raise Conflict("That username is taken.")


def insert_first(tx: Transaction, row: dict[str, Any]) -> bool:
    """Insert a user while the table is empty: one statement, so of many processes one succeeds."""
    values = sa.select(*(sa.literal(value, users.c[key].type).label(key) for key, value in row.items()))
    is_empty = ~sa.exists(sa.select(users.c.id))
    tx.execute(_INSERT.from_select(list(row), values.where(is_empty)))
    return get(tx, row["id"]) is not None


def any_exists(tx: Transaction) -> bool:
    return tx.row(sa.select(users.c.id).limit(1)) is not None


def get(tx: Transaction, user_id: str) -> Row | None:
    return tx.row(_BY_ID, {"id": user_id})


def by_name(tx: Transaction, username: str, workspace: str) -> Row | None:
    """Find a user by name in a workspace, by its name; `refused`: may not sign in."""
    return tx.row(_BY_NAME, {"username": username, "workspace": workspace})


def lock(tx: Transaction, user_ids: Iterable[str]) -> None:
    """Lock users until the transaction ends, in the order of their ids."""
    wanted = sa.select(users.c.id).where(users.c.id.in_(sorted(user_ids))).order_by(users.c.id)
    tx.rows(wanted.with_for_update(key_share=True))


def workspace_of(tx: Transaction, user_id: str) -> str | None:
    """Find the workspace of a user, also of a deleted one."""
    row = tx.row(_WORKSPACE, {"id": user_id})
    return None if row is None else str(row["workspace_id"])


def page(
    tx: Transaction,
    *,
    limit: int,
    after: str | None,
    workspace_id: str | None,
    username: str | None = None,
) -> list[Row]:
    """List users, or those of one workspace or name, oldest first, after the id `after`; ids sort by time."""
    query = sa.select(users).where(users.c.role != DELETED, *in_workspace(users, workspace_id))
    if username is not None:
        # One of each workspace at most; the index that has them is not in the order of ids.
        of_any = users.c.workspace_id.in_(sa.select(workspaces.c.id))
        named = tx.rows(query.where(users.c.username == username, of_any))
        return sorted((row for row in named if row["id"] > (after or "")), key=itemgetter("id"))[:limit]
    query = query.order_by(users.c.id).limit(limit)
    return tx.rows(query if after is None else query.where(users.c.id > after))


def update(tx: Transaction, user_id: str, changes: dict[str, Any], workspace_id: str | None = None) -> bool:
    """Update columns. False: there is no such user, or not in this workspace.

    Raises `Conflict` where it would leave the other users of a workspace without an admin.
    """
    if changes.get("disabled") or changes.get("role") not in (None, "admin"):
        _keep_an_admin(tx, user_id, workspace_id)
    statement = sa.update(users).where(users.c.id == user_id, users.c.role != DELETED)
    statement = statement.where(*in_workspace(users, workspace_id))
    return tx.execute(statement.values(changes)) == 1


def _keep_an_admin(tx: Transaction, user_id: str, workspace_id: str | None) -> None:
    """Raise `Conflict` for the only admin of a workspace with other users. Its lock makes two admins wait in turn."""
    there = workspace_of(tx, user_id)
    if there is None or workspace_id not in (None, there):
        return
    tx.row(sa.select(workspaces.c.id).where(workspaces.c.id == there).with_for_update(key_share=True))
    admin = sa.and_(users.c.role == "admin", users.c.disabled.is_(sa.false()))
    others = sa.and_(users.c.workspace_id == there, users.c.id != user_id, users.c.role != DELETED)
    row = tx.row(
        sa.select(
            sa.exists().where(users.c.id == user_id, admin).label("admin"),
            sa.exists().where(others).label("others"),
            sa.exists().where(others, admin).label("admins"),
        )
    )
    if row is not None and row["admin"] and row["others"] and not row["admins"]:
        raise Conflict("This is the only admin of their workspace: make another one first.")


def forget(tx: Transaction, user_id: str, workspace_id: str | None = None) -> bool:
    """Anonymise a user: frees the name, disables sign-in. False: there is no such user, or not in this workspace."""
    # No username may have a colon: a name that somebody else could take would stand in the way of the deletion.
    anonymous = {"username": f"deleted:{user_id}", "password_hash": "", "role": DELETED, "disabled": True}
    if not update(tx, user_id, anonymous, workspace_id):
        return False
    sign_in_addresses.forget(tx, user_id)
    tx.execute(sa.delete(identities).where(identities.c.user_id == user_id))
    tx.execute(sa.delete(mcp_credentials).where(mcp_credentials.c.user_id == user_id))
    return True
