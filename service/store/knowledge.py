"""Documents of workspaces, with their passages: rows. Searches are in `knowledge_words` and `knowledge_vectors`.

Passages belong to a build of their document. Readers see the document's `build`; another one is made beside it, and
takes its place in one transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import knowledge_documents as documents
from service.store.schema import knowledge_passages as passages
from service.store.schema import knowledge_scopes as scopes
from service.store.visibility import in_workspace
from service.types import now_ms

FOLDER = ""  # in place of a workspace: the agent's folder
BATCH = 500  # rows deleted in one transaction
_SEARCHED = (documents.c.id == passages.c.document_id) & (documents.c.build == passages.c.build)
_LISTED = [column for column in documents.c if column.key not in ("text", "hosts", "next_build")]


def _in_scope(table: sa.Table, workspace_id: str, agent: str) -> tuple[sa.ColumnElement[bool], ...]:
    return table.c.workspace_id == workspace_id, table.c.agent == agent


def version(tx: Transaction, workspace_id: str) -> int:
    """Return a number that grows with each change of a workspace's documents; 0: there have never been any."""
    total = sa.func.sum(scopes.c.version).label("version")
    row = tx.row(sa.select(total).where(scopes.c.workspace_id == workspace_id))
    return int(row["version"] or 0) if row is not None else 0


def scopes_of(tx: Transaction, workspace_id: str, agent: str) -> dict[str, Row]:
    """Read the sums of an agent's documents, by workspace: that one, and `FOLDER`."""
    of_it = sa.or_(scopes.c.workspace_id == workspace_id, scopes.c.workspace_id == FOLDER)
    return {
        row["workspace_id"]: row for row in tx.rows(sa.select(scopes).where(of_it, scopes.c.agent == agent))
    }


def all_scopes(tx: Transaction) -> list[Row]:
    """List every agent with documents in a workspace, and every folder with vectors."""
    return tx.rows(sa.select(scopes).order_by(scopes.c.workspace_id, scopes.c.agent))


def lock(tx: Transaction, workspace_id: str, agent: str) -> tuple[Row, list[Row]]:
    """Lock a workspace's sums for a change; return those of the agent, and all.

    Sums that are being inserted are not locked: first documents of two agents, added at once, may exceed the bounds.
    """
    zero = dict.fromkeys(("version", "documents", "bytes", "passages", "tokens"), 0)
    row = {"workspace_id": workspace_id, "agent": agent, **zero, "model": None, "updated_at": now_ms()}
    tx.execute(InsertOnce(scopes), row)
    query = sa.select(scopes).where(scopes.c.workspace_id == workspace_id).order_by(scopes.c.agent)
    found = tx.rows(query.with_for_update())
    return next(one for one in found if one["agent"] == agent), found


def update_scope(tx: Transaction, scope: Row, changes: dict[str, Any]) -> None:
    """Change the sums of an agent's documents in a workspace, as a new version."""
    of_it = _in_scope(scopes, scope["workspace_id"], scope["agent"])
    told = {"version": scopes.c.version + 1, "updated_at": now_ms()}
    tx.execute(sa.update(scopes).where(*of_it).values({**changes, **told}))


def get(tx: Transaction, workspace_id: str | None, agent: str, document_id: str) -> Row | None:
    """Find a document of a workspace, or of any."""
    of_it = [documents.c.agent == agent, *in_workspace(documents, workspace_id)]
    return tx.row(sa.select(documents).where(documents.c.id == document_id, *of_it))


def named(tx: Transaction, workspace_id: str, agent: str, name: str) -> Row | None:
    of_it = _in_scope(documents, workspace_id, agent)
    return tx.row(sa.select(documents).where(documents.c.name == name, *of_it))


def page(
    tx: Transaction,
    workspace_id: str | None,
    agent: str,
    *,
    limit: int,
    after: str | None,
    text: bool = False,
) -> list[Row]:
    """List documents of a workspace, or of all, without their texts, or with `text`; oldest first, after an id."""
    query = sa.select(*(documents.c if text else _LISTED)).where(documents.c.agent == agent)
    query = query.where(*in_workspace(documents, workspace_id))
    if after is not None:
        query = query.where(documents.c.id > after)
    return tx.rows(query.order_by(documents.c.id).limit(limit))


def add(tx: Transaction, row: dict[str, Any]) -> None:
    tx.execute(sa.insert(documents), row)


def update(tx: Transaction, document_id: str, changes: dict[str, Any]) -> None:
    tx.execute(sa.update(documents).where(documents.c.id == document_id).values(changes))


def delete(tx: Transaction, document_id: str) -> None:
    """Delete a document; its passages with it."""
    tx.execute(sa.delete(documents).where(documents.c.id == document_id))


def add_passages(tx: Transaction, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        tx.execute(sa.insert(passages), list(rows))


def drop_build(tx: Transaction, document_id: str, build: int) -> None:
    """Delete the passages of one build of a document."""
    tx.execute(sa.delete(passages).where(passages.c.document_id == document_id, passages.c.build == build))


def take_next_builds(tx: Transaction, workspace_id: str, agent: str) -> None:
    """Let the builds that were made beside the searched ones take their places."""
    built = (*_in_scope(documents, workspace_id, agent), documents.c.next_build.is_not(None))
    tx.execute(sa.update(documents).where(*built).values(build=documents.c.next_build, next_build=None))


def sums(tx: Transaction, workspace_id: str, agent: str) -> dict[str, int]:
    """Count documents, bytes, passages and tokens."""
    names = {"bytes": documents.c.size, "passages": documents.c.passages, "tokens": documents.c.tokens}
    columns = [sa.func.sum(column).label(name) for name, column in names.items()]
    query = sa.select(sa.func.count().label("documents"), *columns)
    found = tx.rows(query.where(*_in_scope(documents, workspace_id, agent)))[0]
    return {name: int(found[name] or 0) for name in ("documents", *names)}


def delete_unused(tx: Transaction, workspace_id: str, agent: str) -> int:
    """Delete at most `BATCH` passages of builds that nobody reads or makes; return how many."""
    read = (documents.c.build == passages.c.build, documents.c.next_build == passages.c.build)
    used = sa.exists().where(documents.c.id == passages.c.document_id, sa.or_(*read))
    some = sa.select(passages.c.id).where(*_in_scope(passages, workspace_id, agent), ~used).limit(BATCH)
    ids = [row["id"] for row in tx.rows(some)]
    return tx.execute(sa.delete(passages).where(passages.c.id.in_(ids))) if ids else 0


def digests(tx: Transaction, workspace_id: str, agent: str, *, after: int, limit: int) -> list[Row]:
    """List id, digest, title and text of the passages that are searched, after the id `after`."""
    columns = (passages.c.id, passages.c.digest, passages.c.title, passages.c.text)
    query = sa.select(*columns).join(documents, _SEARCHED).where(*_in_scope(passages, workspace_id, agent))
    return tx.rows(query.where(passages.c.id > after).order_by(passages.c.id).limit(limit))


def of_digests(
    tx: Transaction, workspace_id: str, agent: str, wanted: Sequence[str], category: str | None
) -> list[Row]:
    """Read the passages of digests that are searched, of one category or of any."""
    names = ("title", "uri", "category", "text", "digest")
    query = sa.select(*(passages.c[name] for name in names), documents.c.trusted).join(documents, _SEARCHED)
    query = query.where(*_in_scope(passages, workspace_id, agent), passages.c.digest.in_(wanted))
    if category is not None:
        query = query.where(passages.c.category == category)
    return tx.rows(query.order_by(passages.c.id))


def categories(tx: Transaction, workspace_id: str, agent: str) -> frozenset[str]:
    """Return the categories that documents have."""
    query = sa.select(documents.c.category).where(*_in_scope(documents, workspace_id, agent)).distinct()
    return frozenset(row["category"] for row in tx.rows(query)) - {""}


def trusted_hosts(tx: Transaction, workspace_id: str, agent: str) -> frozenset[str]:
    """Return the hosts that trusted documents name."""
    query = sa.select(documents.c.hosts).where(
        *_in_scope(documents, workspace_id, agent), documents.c.trusted
    )
    return frozenset(host for row in tx.rows(query) for host in row["hosts"])
