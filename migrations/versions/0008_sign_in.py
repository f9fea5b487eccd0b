"""approvals, webhooks: ids of decisions and attempts; addresses that users have signed in from

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only adds: columns that may be empty, and a table

COLUMNS = (("approvals", "decision_id"), ("webhooks", "claim_id"), ("notices", "claim_id"))


def upgrade() -> None:
    for table, name in COLUMNS:
        gentle.add_columns(table, sa.Column(name, sa.String(length=32), nullable=True))
    op.create_table(
        "sign_in_addresses",
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_sign_in_addresses_user_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "digest", name=op.f("pk_sign_in_addresses")),
    )
    op.create_index(op.f("ix_sign_in_addresses_seen_at"), "sign_in_addresses", ["seen_at"])


def downgrade() -> None:
    there = {"if_exists": True} if gentle.on_postgresql() else {}
    op.drop_table("sign_in_addresses", **there)
    gentle.release_locks()
    for table, name in reversed(COLUMNS):
        gentle.drop_columns(table, name)
