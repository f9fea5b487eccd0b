"""runs, ledger and holds: an index less for each, so that a run changes fewer pages

Revision ID: 0007
Revises: 0006
"""

from __future__ import annotations

from collections.abc import Sequence

from alembic import op

from migrations import gentle

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # the same statements, with other indexes; a hold has its id in its key as before

CALLS = "account = 'upstream'"
ENDED = "finished_at IS NOT NULL"


def upgrade() -> None:
    gentle.drop_index("ix_runs_finished_at", "runs")
    gentle.drop_index("ix_ledger_run_id", "ledger")
    if gentle.on_postgresql():
        gentle.replace_primary_key("pk_holds", "holds", ["run_id", "id"])
        gentle.drop_index("ix_holds_run_id", "holds")  # last: until now holds were looked for by it
    else:
        gentle.drop_index("ix_holds_run_id", "holds")  # first, so that it is not made again for the new table
        _sqlite_key(["run_id", "id"])


def downgrade() -> None:
    if gentle.on_postgresql():
        gentle.create_index("ix_holds_run_id", "holds", ["run_id"])
        gentle.replace_primary_key("pk_holds", "holds", ["id"])
    else:
        _sqlite_key(["id"])
        gentle.create_index("ix_holds_run_id", "holds", ["run_id"])
    gentle.create_index("ix_ledger_run_id", "ledger", ["run_id"], where=CALLS)
    gentle.create_index("ix_runs_finished_at", "runs", ["finished_at"], where=ENDED)


def _sqlite_key(columns: Sequence[str]) -> None:
    """Change the primary key: the rows go to a new table."""
    with op.batch_alter_table("holds", table_kwargs={"sqlite_with_rowid": False}) as batch_op:
        batch_op.drop_constraint("pk_holds", type_="primary")
        batch_op.create_primary_key("pk_holds", [*columns])
