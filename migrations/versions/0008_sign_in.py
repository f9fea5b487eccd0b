"""approvals, webhooks: ids of decisions and attempts; addresses that users have signed in from

Revision ID: 0008
Revises: 0007
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only adds: columns that may be empty, and a table


def upgrade() -> None:
    op.add_column("approvals", sa.Column("decision_id", sa.String(length=32), nullable=True))
    op.add_column("webhooks", sa.Column("claim_id", sa.String(length=32), nullable=True))
    op.add_column("notices", sa.Column("claim_id", sa.String(length=32), nullable=True))
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
    op.drop_index(op.f("ix_sign_in_addresses_seen_at"), "sign_in_addresses")
    op.drop_table("sign_in_addresses")
    for table, column in (("notices", "claim_id"), ("webhooks", "claim_id"), ("approvals", "decision_id")):
        with op.batch_alter_table(table) as batch_op:
            batch_op.drop_column(column)
