"""schedules, schedule_slots: runs at the times of a cron expression

Revision ID: 0035
Revises: 0034
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0035"
down_revision = "0034"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code has no schedules: slots wait for a newer worker
DEFAULT_WORKSPACE = "wsp_" + "0" * 26


def upgrade() -> None:
    gentle.add_columns("runs", sa.Column("schedule_id", sa.String(32)))
    of_schedules = "schedule_id IS NOT NULL"
    badly = f"{of_schedules} AND status IN ('failed', 'cancelled')"
    gentle.create_index("ix_runs_schedule_id_id", "runs", ["schedule_id", "id"], where=of_schedules)
    gentle.create_index("ix_runs_schedule_id_status_id", "runs", ["schedule_id", "status", "id"], where=badly)
    op.create_table(
        "schedules",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("workspace_id", sa.String(length=32), server_default=DEFAULT_WORKSPACE, nullable=False),
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("key_id", sa.String(length=32), nullable=True),
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("input", sa.Text(), nullable=False),
        sa.Column("cron", sa.String(length=128), nullable=False),
        sa.Column("timezone", sa.String(length=64), nullable=False),
        sa.Column("missed", sa.String(length=8), nullable=False),
        sa.Column("session_id", sa.String(length=32), nullable=True),
        sa.Column("cap_nano", sa.BigInteger(), nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("stopped", sa.String(length=64), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_schedules_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
    )
    op.create_index("ix_schedules_next_at", "schedules", ["next_at"])
    op.create_index("ix_schedules_user_id_id", "schedules", ["user_id", "id"])
    op.create_index("ix_schedules_user_id_agent_id", "schedules", ["user_id", "agent", "id"])
    op.create_index("ix_schedules_agent_id", "schedules", ["agent", "id"])
    of_others = sa.text(f"workspace_id <> '{DEFAULT_WORKSPACE}'")
    op.create_index(
        "ix_schedules_workspace_id_id",
        "schedules",
        ["workspace_id", "id"],
        sqlite_where=of_others,
        postgresql_where=of_others,
    )
    op.create_table(
        "schedule_slots",
        sa.Column("schedule_id", sa.String(length=32), nullable=False),
        sa.Column("slot", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.String(length=8), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=True),
        sa.Column("run_id", sa.String(length=32), nullable=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["schedule_id"], ["schedules.id"], name="fk_schedule_slots_schedule_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("schedule_id", "slot", name="pk_schedule_slots"),
    )
    op.create_index("ix_schedule_slots_at", "schedule_slots", ["at"])
    for column, condition in (("run_id", "run_id IS NOT NULL"), ("slot", "run_id IS NULL")):
        op.create_index(
            f"ix_schedule_slots_schedule_id_{column}",
            "schedule_slots",
            ["schedule_id", column],
            sqlite_where=sa.text(condition),
            postgresql_where=sa.text(condition),
        )


def downgrade() -> None:
    gentle.drop_index("ix_runs_schedule_id_status_id", "runs")
    gentle.drop_index("ix_runs_schedule_id_id", "runs")
    gentle.drop_columns("runs", "schedule_id")
    op.drop_table("schedule_slots")
    op.drop_table("schedules")
