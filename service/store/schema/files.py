"""Tables of images and documents: the content once for each owner, and the runs and sessions that refer to it.

Content is deleted with the last row that refers to it: see `service.store.files`.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, String

from service.store.schema.base import metadata
from service.store.schema.sealed import SealedBase64

files = sa.Table(
    "files",
    metadata,
    Column("user_id", String(32), ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True),  # SHA-256 of the content
    Column("media_type", String(64), nullable=False),
    Column("size", Integer, nullable=False),  # bytes of the content
    Column("data", SealedBase64("files.data"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

run_files = sa.Table(
    "run_files",
    metadata,
    Column("run_id", String(32), ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("user_id", String(32), nullable=False),
    Index("ix_run_files_user_id_digest", "user_id", "digest"),
)

# Of the messages of a session, which outlive its runs.
session_files = sa.Table(
    "session_files",
    metadata,
    Column("session_id", String(32), ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("digest", String(64), primary_key=True),
    Column("user_id", String(32), nullable=False),
    Index("ix_session_files_user_id_digest", "user_id", "digest"),
)
