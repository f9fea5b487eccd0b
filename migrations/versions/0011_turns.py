"""messages and runs: which message each goes on from, and how its turn ended

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations import gentle

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
OLDEST_CODE = (
    "0002"  # only adds columns that may be empty: a message of older code goes on from the one before it
)

MESSAGES = (
    ("parent_seq", sa.Integer()),
    ("status", sa.String(16)),
    ("error_code", sa.String(64)),
    ("sources", sa.JSON()),
    ("tools", sa.JSON()),
)


def upgrade() -> None:
    gentle.add_columns("messages", *(sa.Column(name, kind) for name, kind in MESSAGES))
    gentle.add_columns("runs", sa.Column("parent_seq", sa.Integer()))


def downgrade() -> None:
    gentle.drop_columns("runs", "parent_seq")
    gentle.drop_columns("messages", *(name for name, _ in reversed(MESSAGES)))
