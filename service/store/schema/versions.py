"""Tables of agents' versions: published files, and which version is served."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Integer, String, Text

from service.store.schema.base import metadata

agent_versions = sa.Table(
    "agent_versions",
    metadata,
    Column("agent", String(64), primary_key=True),
    Column("version", String(32), primary_key=True),  # hash of the folder's files
    Column("files", Text, nullable=False),  # packed JSON: content in base64 by name
    Column("signature", String(64), nullable=False),  # HMAC of agent, version and files under SECRET_KEY
    Column("size", Integer, nullable=False),  # bytes of all files
    Column("published_by", String(32)),  # user; NULL: the command line
    Column("published_at", BigInteger, nullable=False),
)

# What is served in place of the folder: the row of an agent with the highest number. Those before are its history.
agent_pins = sa.Table(
    "agent_pins",
    metadata,
    Column("agent", String(64), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("version", String(32)),  # NULL: the folder
    Column("pinned_by", String(32)),
    Column("pinned_at", BigInteger, nullable=False, index=True),
)
