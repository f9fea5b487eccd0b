"""ledger: of an entry's rows only the call itself is looked for, so only that is indexed

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

from migrations import gentle

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # the same statements, with other indexes

CALLS = "account = 'upstream'"
INDEXES = {
    "ix_ledger_run_id": ["run_id"],
    "ix_ledger_called_at": ["called_at"],
    "ix_ledger_user_id_called_at": ["user_id", "called_at"],
}


def upgrade() -> None:
    for name, columns in INDEXES.items():
        gentle.replace_index(name, "ledger", columns, where=CALLS)


def downgrade() -> None:
    for name, columns in INDEXES.items():
        gentle.replace_index(name, "ledger", columns)
