"""runs and holds: what nobody looks for is in no index, so that a run changes fewer pages

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # the same statements, with other indexes

COLUMNS = {"ix_runs_session_id": "session_id", "ix_runs_finished_at": "finished_at"}


def upgrade() -> None:
    for name, column in COLUMNS.items():
        there = sa.text(f"{column} IS NOT NULL")
        op.drop_index(name, "runs")
        op.create_index(name, "runs", [column], sqlite_where=there, postgresql_where=there)
    op.drop_index("ix_holds_called_at", "holds")
    _holds_again(sqlite_with_rowid=False)


def downgrade() -> None:
    for name, column in COLUMNS.items():
        op.drop_index(name, "runs")
        op.create_index(name, "runs", [column])
    _holds_again(sqlite_with_rowid=True)
    op.create_index("ix_holds_called_at", "holds", ["called_at"])


def _holds_again(sqlite_with_rowid: bool) -> None:
    """SQLite cannot change what a table is kept by: the rows go to a new one. PostgreSQL has nothing to change."""
    if op.get_bind().dialect.name == "sqlite":
        kind = {"sqlite_with_rowid": sqlite_with_rowid}
        with op.batch_alter_table("holds", recreate="always", table_kwargs=kind):
            pass
