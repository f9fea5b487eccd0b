"""Tables of agents' versions: published files, and which version is served."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Integer, String, Text

from service.store.schema.base import Json, metadata

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

# Versions on trial with a share of the traffic. Of an agent, only that with the highest number may be open.
agent_canaries = sa.Table(
    "agent_canaries",
    metadata,
    Column("agent", String(64), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("version", String(32), nullable=False),
    Column("against", String(32), nullable=False),  # pinned version
    Column("share", Integer, nullable=False),  # of 10,000 sessions and users
    Column("started_by", String(32)),
    Column("started_at", BigInteger, nullable=False),
    Column("next_at", BigInteger, nullable=False),  # of the comparison
    Column("looks", Integer, nullable=False, default=0),  # tests made, see `service.agents.canary_test`
    Column("figures", Json),  # of the last comparison
    Column("worse_in", String(16)),  # failures | cost | feedback
    Column("outcome", String(16)),  # rolled_back | pinned | ended; NULL: open
    Column("ended_at", BigInteger),
    Column("changed_at", BigInteger, nullable=False, index=True),
)
