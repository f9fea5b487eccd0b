"""runs, approvals and the ledger: indexes for what is rare, so that no list reads on until it has found a page

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

from migrations import gentle

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only indexes: older code runs the same statements

BAD = "status IN ('failed', 'cancelled')"
OF_A_SESSION = "session_id IS NOT NULL"
Index = tuple[str, str, list[str], str | None]  # its name, table and columns, and the rows that are in it
NEW: tuple[Index, ...] = (
    ("ix_runs_user_id_agent_id", "runs", ["user_id", "agent", "id"], None),
    ("ix_runs_agent_id", "runs", ["agent", "id"], None),
    ("ix_runs_session_id_id", "runs", ["session_id", "id"], OF_A_SESSION),
    ("ix_runs_status_id", "runs", ["status", "id"], BAD),
    ("ix_runs_user_id_status_id", "runs", ["user_id", "status", "id"], BAD),
    ("ix_runs_agent_status_id", "runs", ["agent", "status", "id"], BAD),
    ("ix_runs_died", "runs", ["id"], "status = 'failed' AND losses > 0"),
    ("ix_sessions_user_id_agent_id", "sessions", ["user_id", "agent", "id"], None),
    ("ix_sessions_agent_id", "sessions", ["agent", "id"], None),
    ("ix_approvals_user_id_agent_id", "approvals", ["user_id", "agent", "id"], None),
    ("ix_approvals_agent_id", "approvals", ["agent", "id"], None),
    ("ix_approvals_user_id_id", "approvals", ["user_id", "id"], None),
    ("ix_approvals_status_id", "approvals", ["status", "id"], None),
    ("ix_approvals_user_id_status_id", "approvals", ["user_id", "status", "id"], None),
    ("ix_feedback_score_run_id", "feedback", ["score", "run_id"], None),
    (
        "ix_ledger_session_id_called_at",
        "ledger",
        ["session_id", "called_at"],
        f"account = 'upstream' AND {OF_A_SESSION}",
    ),
)
# Those whose work a new one does too.
OLD: tuple[Index, ...] = (
    ("ix_runs_session_id", "runs", ["session_id"], OF_A_SESSION),
    ("ix_approvals_user_id", "approvals", ["user_id"], None),
    ("ix_approvals_status", "approvals", ["status"], None),
)


def upgrade() -> None:
    _replace(OLD, NEW)


def downgrade() -> None:
    _replace(NEW, OLD)


def _replace(old: tuple[Index, ...], new: tuple[Index, ...]) -> None:
    for name, table, columns, rows in new:
        gentle.create_index(name, table, columns, where=rows)
    for name, table, _, _ in old:
        gentle.drop_index(name, table)
