"""Table of notes that agents keep about their users."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, ForeignKey, String

from service.store.schema.base import Json, metadata
from service.store.schema.sealed import SealedText

memory_notes = sa.Table(
    "memory_notes",
    metadata,
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("holder", String(100), primary_key=True),  # empty: the user; else key and name of an end user
    Column("digest", String(64), primary_key=True),  # of the key, which is sealed
    Column("key", SealedText("memory_notes.key"), nullable=False),
    Column("text", SealedText("memory_notes.text"), nullable=False),
    Column("agent", String(64)),  # that has written it; NULL: the user
    Column("untrusted", Json),  # sources of untrusted text in the run that has written it
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)
