"""Workspaces table. Deletion renames the row and keeps it: its users' rows, and so the ledger, refer to it."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.errors import Conflict
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import knowledge_scopes, users, workspaces
from service.store.statement import Statement
from service.store.users import DELETED
from service.types import DEFAULT_WORKSPACE

# No name that may be chosen has an underscore.
_DELETED = sa.literal("deleted-") + workspaces.c.id
_LIVE = sa.select(workspaces).where(workspaces.c.name != _DELETED)
_BY_ID = _LIVE.where(workspaces.c.id == sa.bindparam("id"))
_BY_NAME = _LIVE.where(workspaces.c.name == sa.bindparam("name"))
_GUARDRAILS = Statement(sa.select(workspaces.c.guardrails).where(workspaces.c.id == sa.bindparam("id")))
_INSERT = InsertOnce(workspaces)


def insert(tx: Transaction, row: dict[str, Any]) -> None:
    """Insert a workspace. Raises `Conflict` when the name is taken."""
    tx.execute(_INSERT, row)
    if get(tx, row["id"]) is None:  # drivers do not agree on the row count of an insert
        raise _taken()


def get(tx: Transaction, workspace_id: str) -> Row | None:
    return tx.row(_BY_ID, {"id": workspace_id})


def by_name(tx: Transaction, name: str) -> Row | None:
    return tx.row(_BY_NAME, {"name": name})


def page(tx: Transaction, *, limit: int, after: str | None) -> list[Row]:
    """List workspaces, oldest first, after the id `after`; `default` is the first."""
    query = _LIVE.order_by(workspaces.c.id).limit(limit)
    return tx.rows(query if after is None else query.where(workspaces.c.id > after))


def keep(tx: Transaction, workspace_id: str) -> bool:
    """Keep a workspace from being deleted until this transaction ends. False: there is none."""
    if workspace_id == DEFAULT_WORKSPACE:  # never deleted
        return True
    return tx.row(_BY_ID.with_for_update(read=True), {"id": workspace_id}) is not None


def guardrails(tx: Transaction, workspace_id: str) -> dict[str, Any] | None:
    """Return the guardrails of a workspace; None: it has none."""
    row = tx.row(_GUARDRAILS, {"id": workspace_id})
    return None if row is None else row["guardrails"]


def lock(tx: Transaction, workspace_id: str) -> Row | None:
    """Lock a workspace for a change, and all names: `default` is never changed, so its row stands for them."""
    rows = sa.select(workspaces.c.id).where(workspaces.c.id.in_([DEFAULT_WORKSPACE, workspace_id]))
    tx.rows(rows.order_by(workspaces.c.id).with_for_update())
    return tx.row(sa.select(workspaces).where(workspaces.c.id == workspace_id))


def update(tx: Transaction, workspace_id: str, changes: dict[str, Any]) -> None:
    """Update columns of a locked workspace. Raises `Conflict` when the name is taken."""
    name = changes.get("name")
    if name is not None and tx.row(
        sa.select(workspaces.c.id).where(workspaces.c.name == name, workspaces.c.id != workspace_id)
    ):
        raise _taken()
    tx.execute(sa.update(workspaces).where(workspaces.c.id == workspace_id).values(changes))


def has_users(tx: Transaction, workspace_id: str) -> bool:
    """Return whether a workspace has users that are not deleted."""
    query = sa.select(users.c.id).where(users.c.workspace_id == workspace_id, users.c.role != DELETED)
    return tx.row(query.limit(1)) is not None


def has_documents(tx: Transaction, workspace_id: str) -> bool:
    """Return whether a workspace has documents for its agents."""
    some = (knowledge_scopes.c.workspace_id == workspace_id, knowledge_scopes.c.documents > 0)
    return tx.row(sa.select(knowledge_scopes.c.agent).where(*some).limit(1)) is not None


def deleted_name(workspace_id: str) -> str:
    return f"deleted-{workspace_id}"


def _taken() -> Conflict:
    return Conflict("That name is taken.")
