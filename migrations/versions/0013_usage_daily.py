"""usage by day: what reports of a year read in place of the ledger

The tables are empty at first: upkeep fills them, day by day, see `service/usage/rollup.py`.

Revision ID: 0013
Revises: 0012
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only adds tables

SUMS = (
    "calls",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "amount_nano",
    "saved_nano",
)


def upgrade() -> None:
    op.create_table(
        "usage_days",
        sa.Column("day", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("rolled_until", sa.BigInteger(), nullable=False),
        sa.Column("calls", sa.BigInteger(), nullable=False),
        sa.Column("checked_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint("day", name="pk_usage_days"),
    )
    op.create_table(
        "usage_daily",
        sa.Column("day", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("agent", sa.String(64), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("day", "agent", "model", name="pk_usage_daily"),
    )
    op.create_table(
        "usage_daily_by_user",
        sa.Column("day", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("key_id", sa.String(32), nullable=False),
        sa.Column("agent", sa.String(64), nullable=False),
        sa.Column("model", sa.String(128), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SUMS),
        sa.PrimaryKeyConstraint("day", "user_id", "key_id", "agent", "model", name="pk_usage_daily_by_user"),
    )
    # The table is empty, so this takes no lock that anybody waits for.
    op.create_index("ix_usage_daily_by_user_user_id_day", "usage_daily_by_user", ["user_id", "day"])


def downgrade() -> None:
    op.drop_table("usage_daily_by_user")
    op.drop_table("usage_daily")
    op.drop_table("usage_days")
