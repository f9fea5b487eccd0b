"""MCP tables: definitions of tools as an operator accepted them, those a server offers instead, and credentials."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import mcp_credentials, mcp_tools
from service.types import now_ms

MOST = 4096  # rows read at once: more tools than a file of servers may allow
SERVICE = ""  # user of a credential that all users share


class Definition(NamedTuple):
    """Definition of a tool, as a server sends it, and its digest."""

    digest: str
    body: dict[str, Any]


def every(tx: Transaction) -> list[Row]:
    """List all pinned tools, by server and name."""
    return tx.rows(sa.select(mcp_tools).order_by(mcp_tools.c.server, mcp_tools.c.tool).limit(MOST))


def get(tx: Transaction, server: str, tool: str) -> Row | None:
    return tx.row(sa.select(mcp_tools).where(_is(server, tool)))


def see(tx: Transaction, server: str, found: Mapping[str, Definition]) -> None:
    """Pin tools that are seen for the first time; note which definitions differ from the pinned ones."""
    for tool, definition in found.items():
        row = get(tx, server, tool)
        if row is None:
            tx.execute(InsertOnce(mcp_tools), _first(server, tool, definition))
        elif definition.digest == row["digest"]:
            if row["offered_digest"] is not None:
                _offer(tx, server, tool, None)
        elif definition.digest != row["offered_digest"]:
            _offer(tx, server, tool, definition)


def accept(tx: Transaction, server: str, tool: str, digest: str) -> bool:
    """Pin the offered definition of this digest. False: it is no longer the one that is offered."""
    row = get(tx, server, tool)
    if row is None or row["offered_digest"] != digest:
        return row is not None and row["digest"] == digest
    values = {"digest": digest, "definition": row["offered"], "accepted_at": now_ms()}
    cleared = {"offered_digest": None, "offered": sa.null()}
    condition = sa.and_(_is(server, tool), mcp_tools.c.offered_digest == digest)
    return tx.execute(sa.update(mcp_tools).where(condition).values({**values, **cleared})) == 1


def _first(server: str, tool: str, definition: Definition) -> dict[str, Any]:
    return {
        "server": server,
        "tool": tool,
        "digest": definition.digest,
        "definition": definition.body,
        "accepted_at": now_ms(),
    }


def _offer(tx: Transaction, server: str, tool: str, definition: Definition | None) -> None:
    body = sa.null() if definition is None else definition.body
    values = {"offered_digest": definition and definition.digest, "offered": body}
    tx.execute(sa.update(mcp_tools).where(_is(server, tool)).values(values))


def _is(server: str, tool: str) -> sa.ColumnElement[bool]:
    return sa.and_(mcp_tools.c.server == server, mcp_tools.c.tool == tool)


def credential(tx: Transaction, server: str, user_id: str = SERVICE) -> str | None:
    """Return the encrypted credential of a user, or of the service, towards a server."""
    row = tx.row(sa.select(mcp_credentials.c.secret).where(_of(server, user_id)))
    return None if row is None else str(row["secret"])


def set_credential(tx: Transaction, server: str, user_id: str, secret: str) -> None:
    delete_credential(tx, server, user_id)
    row = {"server": server, "user_id": user_id, "secret": secret, "updated_at": now_ms()}
    tx.execute(InsertOnce(mcp_credentials), row)


def delete_credential(tx: Transaction, server: str, user_id: str) -> bool:
    return tx.execute(sa.delete(mcp_credentials).where(_of(server, user_id))) == 1


def _of(server: str, user_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(mcp_credentials.c.server == server, mcp_credentials.c.user_id == user_id)
