"""runs and holds: what nobody looks for is in no index, so that a run changes fewer pages

Revision ID: 0006
Revises: 0005
"""

from __future__ import annotations

from alembic import op

from migrations import gentle

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # the same statements, with other indexes

COLUMNS = {"ix_runs_session_id": "session_id", "ix_runs_finished_at": "finished_at"}


def upgrade() -> None:
    for name, column in COLUMNS.items():
        gentle.replace_index(name, "runs", [column], where=f"{column} IS NOT NULL")
    gentle.drop_index("ix_holds_called_at", "holds")
    _holds_again(sqlite_with_rowid=False)


def downgrade() -> None:
    for name, column in COLUMNS.items():
        gentle.replace_index(name, "runs", [column])
    _holds_again(sqlite_with_rowid=True)
    gentle.create_index("ix_holds_called_at", "holds", ["called_at"])


def _holds_again(sqlite_with_rowid: bool) -> None:
    """SQLite cannot change what a table is kept by: the rows go to a new one. PostgreSQL has nothing to change."""
    if not gentle.on_postgresql():
        kind = {"sqlite_with_rowid": sqlite_with_rowid}
        with op.batch_alter_table("holds", recreate="always", table_kwargs=kind):
            pass
