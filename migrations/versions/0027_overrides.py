"""overrides: caps of end users; caps and limits that end

Revision ID: 0027
Revises: 0026
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code does not see where an override ends, and counts for no end user

NO_LIMIT = 10**18
INDEXES = (
    ("counters", ("key_id", "period", "starts_at"), "key_id IS NOT NULL"),
    ("ledger", ("key_id", "end_user", "called_at"), "account = 'upstream' AND end_user IS NOT NULL"),
)


def upgrade() -> None:
    for table in ("caps", "counters"):
        gentle.widen_text(table, "scope", 104)
    gentle.add_columns("caps", sa.Column("until", sa.BigInteger()), sa.Column("after_nano", sa.BigInteger()))
    gentle.add_columns(
        "counters", sa.Column("key_id", sa.String(32)), sa.Column("cap_until", sa.BigInteger())
    )
    for table in ("users", "api_keys"):
        gentle.add_columns(
            table,
            sa.Column("limit_runs_until", sa.BigInteger()),
            sa.Column("limit_runs_after", sa.String(64)),
        )
    for table, columns, rows in INDEXES:
        gentle.create_index(f"ix_{table}_{'_'.join(columns)}", table, columns, where=rows)


def downgrade() -> None:
    """Take back all but the width of the scopes. What stood before an override comes back at once."""
    op.execute("DELETE FROM caps WHERE until IS NOT NULL AND after_nano IS NULL")
    op.execute(f"UPDATE caps SET amount_nano = NULLIF(after_nano, {NO_LIMIT}) WHERE until IS NOT NULL")
    for table in ("users", "api_keys"):
        op.execute(f"UPDATE {table} SET limit_runs = limit_runs_after WHERE limit_runs_until IS NOT NULL")
    gentle.release_locks()
    for table, columns, _ in INDEXES:
        gentle.drop_index(f"ix_{table}_{'_'.join(columns)}", table)
    for table in ("users", "api_keys"):
        gentle.drop_columns(table, "limit_runs_until", "limit_runs_after")
    gentle.drop_columns("counters", "key_id", "cap_until")
    gentle.drop_columns("caps", "until", "after_nano")
