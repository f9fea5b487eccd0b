"""Tables: pinned definitions of MCP tools, and credentials towards MCP servers."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import JSON, BigInteger, Column, Index, String, Text

from service.store.schema.base import metadata

mcp_tools = sa.Table(
    "mcp_tools",
    metadata,
    Column("server", String(32), primary_key=True),
    Column("tool", String(64), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("definition", JSON, nullable=False),  # name, description and schema, shown to the model
    Column("accepted_at", BigInteger, nullable=False),
    Column("offered_digest", String(64)),  # of another definition that the server sends; NULL: none
    Column("offered", JSON),
)

mcp_credentials = sa.Table(
    "mcp_credentials",
    metadata,
    Column("server", String(32), primary_key=True),
    Column("user_id", String(32), primary_key=True),  # empty: of the service
    Column("secret", Text, nullable=False),  # encrypted under SECRET_KEY, see `service.infra.sealing`
    Column("updated_at", BigInteger, nullable=False),
    Index("ix_mcp_credentials_user_id_server", "user_id", "server"),
)
