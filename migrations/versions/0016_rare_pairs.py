"""runs: what went wrong of a user and an agent together, so that neither's other runs are read for it

Revision ID: 0016
Revises: 0015
"""

from __future__ import annotations

from migrations import gentle

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only an index: older code runs the same statements

NAME = "ix_runs_user_id_agent_status_id"


def upgrade() -> None:
    columns = ["user_id", "agent", "status", "id"]
    gentle.create_index(NAME, "runs", columns, where="status IN ('failed', 'cancelled')")


def downgrade() -> None:
    gentle.drop_index(NAME, "runs")
