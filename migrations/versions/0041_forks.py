"""runs: whose run a fork is of

Revision ID: 0041
Revises: 0037
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations import gentle

revision = "0041"
down_revision = "0039"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code leaves a fork's steps in the queue to newer workers


def upgrade() -> None:
    gentle.add_columns("runs", sa.Column("subject_id", sa.String(32)))
    gentle.create_index("ix_runs_subject_id", "runs", ["subject_id"], where="subject_id IS NOT NULL")


def downgrade() -> None:
    gentle.drop_index("ix_runs_subject_id", "runs")
    gentle.drop_columns("runs", "subject_id")
