"""runs, agent_versions, agent_pins: whose run a fork is of; published versions of agents, and which is served

Revision ID: 0041
Revises: 0037
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0041"
down_revision = "0039"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code leaves a fork's steps in the queue to newer workers


def upgrade() -> None:
    gentle.add_columns("runs", sa.Column("subject_id", sa.String(32)))
    gentle.create_index("ix_runs_subject_id", "runs", ["subject_id"], where="subject_id IS NOT NULL")
    op.create_table(
        "agent_versions",
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=32), nullable=False),
        sa.Column("files", sa.Text(), nullable=False),
        sa.Column("signature", sa.String(length=64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("published_by", sa.String(length=32), nullable=True),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent", "version", name="pk_agent_versions"),
        if_not_exists=True,
    )
    op.create_table(
        "agent_pins",
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("n", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.String(length=32), nullable=True),
        sa.Column("pinned_by", sa.String(length=32), nullable=True),
        sa.Column("pinned_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent", "n", name="pk_agent_pins"),
        if_not_exists=True,
    )
    op.create_index("ix_agent_pins_pinned_at", "agent_pins", ["pinned_at"], if_not_exists=True)


def downgrade() -> None:
    op.drop_table("agent_pins", if_exists=True)
    op.drop_table("agent_versions", if_exists=True)
    gentle.drop_index("ix_runs_subject_id", "runs")
    gentle.drop_columns("runs", "subject_id")
