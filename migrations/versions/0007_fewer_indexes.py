"""runs, ledger and holds: an index less for each, so that a run changes fewer pages

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # the same statements, with other indexes; a hold has its id in its key as before

CALLS = sa.text("account = 'upstream'")
ENDED = sa.text("finished_at IS NOT NULL")


def upgrade() -> None:
    op.drop_index("ix_runs_finished_at", "runs")
    op.drop_index("ix_ledger_run_id", "ledger")
    op.drop_index("ix_holds_run_id", "holds")
    _holds_by(["run_id", "id"])


def downgrade() -> None:
    _holds_by(["id"])
    op.create_index("ix_holds_run_id", "holds", ["run_id"])
    op.create_index("ix_ledger_run_id", "ledger", ["run_id"], sqlite_where=CALLS, postgresql_where=CALLS)
    op.create_index(
        "ix_runs_finished_at", "runs", ["finished_at"], sqlite_where=ENDED, postgresql_where=ENDED
    )


def _holds_by(key: Sequence[str]) -> None:
    """Change the primary key; in SQLite the rows go to a new table for that."""
    kept = {"sqlite_with_rowid": False}
    with op.batch_alter_table("holds", table_kwargs=kept) as batch_op:
        batch_op.drop_constraint("pk_holds", type_="primary")
        batch_op.create_primary_key("pk_holds", [*key])
