"""runs, approvals and the ledger: indexes for what is rare, so that no list reads on until it has found a page

Revision ID: 0014
Revises: 0013
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only indexes: older code runs the same statements

BAD = "status IN ('failed', 'cancelled')"
OF_A_SESSION = "session_id IS NOT NULL"
# Name, table, columns, and the rows that are in it.
NEW: tuple[tuple[str, str, list[str], str | None], ...] = (
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
OLD: tuple[tuple[str, str, list[str], str | None], ...] = (
    ("ix_runs_session_id", "runs", ["session_id"], OF_A_SESSION),
    ("ix_approvals_user_id", "approvals", ["user_id"], None),
    ("ix_approvals_status", "approvals", ["status"], None),
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        _create(NEW)
        _drop(OLD)


def downgrade() -> None:
    with op.get_context().autocommit_block():
        _create(OLD)
        _drop(NEW)


def _create(indexes: tuple[tuple[str, str, list[str], str | None], ...]) -> None:
    for name, table, columns, rows in indexes:
        where = None if rows is None else sa.text(rows)
        op.create_index(
            name,
            table,
            columns,
            sqlite_where=where,
            postgresql_where=where,
            postgresql_concurrently=True,
            if_not_exists=True,
        )


def _drop(indexes: tuple[tuple[str, str, list[str], str | None], ...]) -> None:
    for name, table, _, _ in indexes:
        op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
