"""savings by layer, and what each process tells of itself

Revision ID: 0043
Revises: 0042
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0043"
down_revision = "0042"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code counts no savings, and leaves 0 in the daily sums of days that it closes

SAVED = ("hits", "near_hits", "coalesced", "hit_saved_nano", "near_saved_nano", "coalesced_saved_nano")
DAILY = ("usage_daily", "usage_daily_by_user")


def upgrade() -> None:
    gentle.add_columns("ledger", sa.Column("batch_saved_nano", sa.BigInteger(), nullable=True))
    for table in DAILY:
        gentle.add_columns(
            table, sa.Column("batch_saved_nano", sa.BigInteger(), nullable=False, server_default="0")
        )
    gentle.add_columns("workers", sa.Column("state", sa.JSON(), nullable=True))
    gentle.release_locks()
    texts = {"user_id": 32, "key_id": 32, "end_user": 64, "agent": 64, "model": 128}
    tables = {
        "savings_hourly": ("hour", "user_id", "key_id", "end_user", "agent", "model"),
        "savings_daily": ("day", "agent", "model"),
        "savings_daily_by_user": ("day", "user_id", "key_id", "agent", "model"),
    }
    for table, (time, *names) in tables.items():
        op.create_table(
            table,
            sa.Column(time, sa.BigInteger(), autoincrement=False, nullable=False),
            *(sa.Column(name, sa.String(length=texts[name]), nullable=False) for name in names),
            *(sa.Column(name, sa.BigInteger(), nullable=False) for name in SAVED),
            sa.PrimaryKeyConstraint(time, *names, name=f"pk_{table}"),
            if_not_exists=True,
        )
    for table, unit in (("savings_hourly", "hour"), ("savings_daily_by_user", "day")):
        op.create_index(f"ix_{table}_user_id_{unit}", table, ["user_id", unit], if_not_exists=True)


def downgrade() -> None:
    for table in ("savings_hourly", "savings_daily", "savings_daily_by_user"):
        op.drop_table(table, if_exists=True)
    for table in (*DAILY, "ledger"):
        gentle.drop_columns(table, "batch_saved_nano")
    gentle.drop_columns("workers", "state")
