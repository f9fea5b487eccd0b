"""Audit: append-only rows, the chain of hashes over them, and what the chain lacks yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import audit, audit_links, audit_unlinked
from service.store.schema import workspaces as all_workspaces
from service.store.statement import Statement

CHAIN_LOCK = 7325712  # key of the advisory lock of the one chainer
ANY_UNLINKED = sa.exists(sa.select(audit_unlinked.c.audit_id))

_INSERT = Statement(InsertOnce(audit))
_INSERT_UNLINKED = Statement(InsertOnce(audit_unlinked))
_TRY = Statement(sa.select(sa.func.pg_try_advisory_xact_lock(CHAIN_LOCK).label("taken")))
# `details` as text, as its hash must not depend on how a driver reads JSON, nor fail for what is none.
_TEXT = [
    sa.cast(column, sa.Text).label("details") if column is audit.c.details else column
    for column in audit.columns
]
_UNLINKED = Statement(
    sa.select(
        audit_unlinked.c.audit_id.label("unlinked_id"),
        audit_unlinked.c.workspace_id.label("unlinked_workspace"),
        audit_links.c.seq.label("linked_as"),
        *_TEXT,
    )
    .outerjoin(audit, audit.c.id == audit_unlinked.c.audit_id)
    .outerjoin(audit_links, audit_links.c.audit_id == audit_unlinked.c.audit_id)
    .order_by(audit_unlinked.c.audit_id)
    .limit(sa.bindparam("limit", type_=sa.Integer()))
)
_HEAD = Statement(
    sa.select(audit_links)
    .where(audit_links.c.workspace_id == sa.bindparam("workspace"))
    .order_by(audit_links.c.seq.desc())
    .limit(1)
)
_LINK = Statement(sa.insert(audit_links))
_LINKED = Statement(sa.delete(audit_unlinked).where(audit_unlinked.c.audit_id == sa.bindparam("id")))


def insert(tx: Transaction, row: Mapping[str, Any]) -> None:
    """Add a row, in the round trip of the transaction's other statements."""
    tx.send(_INSERT, row)
    tx.send(_INSERT_UNLINKED, {"audit_id": row["id"], "workspace_id": row["workspace_id"]})
    tx.audited = True


def exists(tx: Transaction, audit_id: str) -> bool:
    return tx.row(sa.select(audit.c.id).where(audit.c.id == audit_id)) is not None


def may_link(tx: Transaction) -> bool:
    """Take the chainer's lock until this transaction ends. False: another process has it."""
    if tx.one_writer:
        return True
    return bool((tx.row(_TRY) or {}).get("taken"))


def unlinked(tx: Transaction, limit: int) -> list[Row]:
    """List rows to link, in the order of their ids; all columns but the first two are None where a row is gone.

    `linked_as`: sequence number of a link that is there already.
    """
    return tx.rows(_UNLINKED, {"limit": limit})


def head(tx: Transaction, workspace_id: str) -> Row | None:
    """Find the last link of a workspace."""
    return tx.row(_HEAD, {"workspace": workspace_id})


def link(tx: Transaction, links: Sequence[Mapping[str, Any]], linked: Sequence[str]) -> None:
    """Append links; `linked` (ids) wait no longer."""
    tx.send(_LINK, *links)
    tx.send(_LINKED, *({"id": audit_id} for audit_id in linked))


def chain(tx: Transaction, workspace_id: str, after: int, limit: int) -> list[Row]:
    """List links after a sequence number, each with its row: the columns of a row that is gone are None."""
    query = (
        sa.select(
            audit_links.c.seq,
            audit_links.c.audit_id,
            audit_links.c.previous,
            audit_links.c.hash,
            audit_links.c.at.label("linked_at"),
            *_TEXT,
        )
        .outerjoin(audit, audit.c.id == audit_links.c.audit_id)
        .where(audit_links.c.workspace_id == workspace_id, audit_links.c.seq > after)
    )
    return tx.rows(query.order_by(audit_links.c.seq).limit(limit))


def link_at(tx: Transaction, workspace_id: str, seq: int) -> Row | None:
    """Find one link."""
    one = sa.and_(audit_links.c.workspace_id == workspace_id, audit_links.c.seq == seq)
    return tx.row(sa.select(audit_links).where(one))


def without_link(tx: Transaction, workspace_id: str, after: str, limit: int) -> list[Row]:
    """List a workspace's rows that have no link, after one, oldest first. `waits`: the chainer has yet to link it."""
    query = (
        sa.select(audit.c.id, audit.c.at, audit_unlinked.c.audit_id.is_not(None).label("waits"))
        .outerjoin(audit_links, audit_links.c.audit_id == audit.c.id)
        .outerjoin(audit_unlinked, audit_unlinked.c.audit_id == audit.c.id)
        .where(audit.c.workspace_id == workspace_id, audit.c.id > after, audit_links.c.seq.is_(None))
    )
    return tx.rows(query.order_by(audit.c.id).limit(limit))


def workspaces(tx: Transaction) -> list[str]:
    """List the workspaces that have rows or links."""
    both = sa.union(
        sa.select(audit.c.workspace_id).distinct(), sa.select(audit_links.c.workspace_id).distinct()
    )
    return sorted(row["workspace_id"] for row in tx.rows(both))


class Filter(NamedTuple):
    """Filter of a list, by one of `action`, `user` and `subject`: each has its index, and no two of them one together.

    `since` and `until` are ids: bounds of time, the second exclusive.
    """

    workspace: str
    action: str | None = None
    user: str | None = None
    subject: str | None = None
    since: str | None = None
    until: str | None = None


def has_workspace(tx: Transaction, workspace_id: str) -> bool:
    """Return whether a workspace is there, or was and has left rows."""
    there = sa.exists().where(all_workspaces.c.id == workspace_id)
    row = tx.row(
        sa.select(sa.or_(there, sa.exists().where(audit.c.workspace_id == workspace_id)).label("any"))
    )
    return row is not None and bool(row["any"])


def recent(tx: Transaction, chosen: Filter, *, limit: int, before: str | None) -> list[Row]:
    """List rows, newest first."""
    query = sa.select(audit).where(*_conditions(chosen))
    if before is not None:
        query = query.where(audit.c.id < before)
    query = query.order_by(audit.c.id.desc()).limit(limit)
    return tx.rows(query)


def export(tx: Transaction, workspace_id: str, *, limit: int, after: str) -> list[Row]:
    """List rows after one, oldest first, each with its link."""
    query = (
        sa.select(audit, audit_links.c.seq, audit_links.c.previous, audit_links.c.hash)
        .add_columns(audit_links.c.at.label("linked_at"))
        .outerjoin(audit_links, audit_links.c.audit_id == audit.c.id)
        .where(audit.c.workspace_id == workspace_id, audit.c.id > after)
    )
    return tx.rows(query.order_by(audit.c.id).limit(limit))


def _conditions(chosen: Filter) -> list[sa.ColumnElement[bool]]:
    equal = {
        audit.c.workspace_id: chosen.workspace,
        audit.c.action: chosen.action,
        audit.c.user_id: chosen.user,
        audit.c.subject: chosen.subject,
    }
    found = [column == value for column, value in equal.items() if value is not None]
    if chosen.since is not None:
        found.append(audit.c.id >= chosen.since)
    if chosen.until is not None:
        found.append(audit.c.id < chosen.until)
    return found
