"""runs, task_turns: the line in which tasks wait for a worker

Revision ID: 0036
Revises: 0035
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # tasks of older code are in no line: they are executed as their messages come


def upgrade() -> None:
    op.create_table(
        "task_turns",
        sa.Column("priority", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("holder", sa.String(length=32), nullable=False),
        sa.Column("turn", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("priority", "holder", name="pk_task_turns"),
        if_not_exists=True,
    )
    op.create_index(
        "ix_task_turns_priority_turn", "task_turns", ["priority", "turn"], unique=False, if_not_exists=True
    )
    gentle.release_locks()
    gentle.add_columns(
        "runs",
        sa.Column("priority", sa.SmallInteger()),
        sa.Column("in_line", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    columns = ["priority", "workspace_id", "user_id", "id"]
    gentle.create_index("ix_runs_line", "runs", columns, where="in_line AND status = 'queued'")


def downgrade() -> None:
    gentle.drop_index("ix_runs_line", "runs")
    gentle.drop_columns("runs", "in_line", "priority")
    op.drop_table("task_turns", if_exists=True)
