"""agent_canaries: versions of agents on trial with a share of the traffic

Revision ID: 0042
Revises: 0041
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0042"
down_revision = "0041"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code serves everybody the pinned version


def upgrade() -> None:
    op.create_table(
        "agent_canaries",
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("against", sa.String(length=32), nullable=False),
        sa.Column("share", sa.Integer(), nullable=False),
        sa.Column("started_by", sa.String(length=32), nullable=True),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("looks", sa.Integer(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=True),
        sa.Column("worse_in", sa.String(length=16), nullable=True),
        sa.Column("outcome", sa.String(length=16), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent", "n", name="pk_agent_canaries"),
        if_not_exists=True,
    )
    op.create_index("ix_agent_canaries_changed_at", "agent_canaries", ["changed_at"], if_not_exists=True)


def downgrade() -> None:
    op.drop_table("agent_canaries", if_exists=True)
