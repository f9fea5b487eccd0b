"""counters: windows that are over are rolled into one row for each day and month

Revision ID: 0015
Revises: 0014
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None
# Adds a table and an index. Older code counts and spends on it as before; only its `flask ledger check` would miss the
# counters that newer code has rolled up.
OLDEST_CODE = "0002"

INDEX = "ix_counters_starts_at"


def upgrade() -> None:
    gentle.create_index(INDEX, "counters", ["starts_at"], where="period <> 'total'")
    op.create_table(
        "closed_windows",
        sa.Column("period", sa.String(8), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("counters", sa.BigInteger(), nullable=False),
        sa.Column("spent_nano", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("period", "starts_at", name="pk_closed_windows"),
    )


def downgrade() -> None:
    gentle.drop_index(INDEX, "counters")
    op.drop_table("closed_windows")
