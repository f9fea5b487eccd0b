"""runs: what went wrong in a session, and an index of all that did which is not read for one user

With the old one PostgreSQL reads the failures of all users for the few of one who has many runs.

Revision ID: 0018
Revises: 0017
"""

from __future__ import annotations

from migrations import gentle

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only an index: older code runs the same statements

BAD = "status IN ('failed', 'cancelled')"
NEW, CHANGED = "ix_runs_session_id_status_id", "ix_runs_status_id"


def upgrade() -> None:
    gentle.create_index(NEW, "runs", ["session_id", "status", "id"], where=BAD)
    gentle.replace_index(CHANGED, "runs", ["status", "id"], where=f"{BAD} AND id > ''")


def downgrade() -> None:
    gentle.replace_index(CHANGED, "runs", ["status", "id"], where=BAD)
    gentle.drop_index(NEW, "runs")
