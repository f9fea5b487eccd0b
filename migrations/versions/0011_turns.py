"""messages and runs: which message each goes on from, and how its turn ended

Revision ID: 0011
Revises: 0010
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None
OLDEST_CODE = (
    "0002"  # only adds columns that may be empty: a message of older code goes on from the one before it
)

COLUMNS = (
    ("messages", "parent_seq", sa.Integer()),
    ("messages", "status", sa.String(16)),
    ("messages", "error_code", sa.String(64)),
    ("messages", "sources", sa.JSON()),
    ("messages", "tools", sa.JSON()),
    ("runs", "parent_seq", sa.Integer()),
)


def upgrade() -> None:
    for table, name, kind in COLUMNS:  # without a default: no row is written anew
        op.add_column(table, sa.Column(name, kind))


def downgrade() -> None:
    for table, name, _ in reversed(COLUMNS):
        op.drop_column(table, name)
