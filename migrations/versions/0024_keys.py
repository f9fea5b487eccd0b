"""keys: rotation with an overlap, last use, a limit of their own; end users in the books

Revision ID: 0024
Revises: 0023
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations import gentle

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code refuses the old secret of a rotated key, and knows no limit of keys

COLUMNS = (
    sa.Column("changed_at", sa.BigInteger()),
    sa.Column("previous_digest", sa.String(64)),
    sa.Column("previous_expires_at", sa.BigInteger()),
    sa.Column("last_used_at", sa.BigInteger()),
    sa.Column("limit_runs", sa.String(64)),
)
INDEXED = ("changed_at", "previous_digest")


def upgrade() -> None:
    for table in ("holds", "ledger"):
        gentle.add_columns(table, sa.Column("end_user", sa.String(64)))
    gentle.add_columns("api_keys", *COLUMNS)
    for name in INDEXED:
        gentle.create_index(f"ix_api_keys_{name}", "api_keys", (name,))


def downgrade() -> None:
    for name in reversed(INDEXED):
        gentle.drop_index(f"ix_api_keys_{name}", "api_keys")
    gentle.drop_columns("api_keys", *(column.name for column in COLUMNS))
    for table in ("ledger", "holds"):
        gentle.drop_columns(table, "end_user")
