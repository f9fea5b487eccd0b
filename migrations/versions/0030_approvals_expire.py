"""approvals expire: what the model said before a call, the end of its approval, and webhooks of approvals

Revision ID: 0030
Revises: 0029
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code asks without an end, and tells no webhook


def upgrade() -> None:
    gentle.add_columns(
        "approvals", sa.Column("explanation", sa.Text()), sa.Column("expires_at", sa.BigInteger())
    )
    gentle.create_index(
        "ix_approvals_expires_at",
        "approvals",
        ("expires_at",),
        where="status = 'pending' AND expires_at IS NOT NULL",
    )
    op.create_table(
        "approval_webhooks",
        sa.Column("approval_id", sa.String(length=32), nullable=False),
        sa.Column("run_id", sa.String(length=32), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("claim_id", sa.String(length=32), nullable=True),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("last_error", sa.String(length=256), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("delivered_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["approval_id"],
            ["approvals.id"],
            name="fk_approval_webhooks_approval_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("approval_id", name="pk_approval_webhooks"),
    )
    op.create_index("ix_approval_webhooks_run_id", "approval_webhooks", ["run_id"])
    op.create_index("ix_approval_webhooks_next_at", "approval_webhooks", ["next_at"])


def downgrade() -> None:
    op.drop_table("approval_webhooks")
    gentle.drop_index("ix_approvals_expires_at", "approvals")
    gentle.drop_columns("approvals", "explanation", "expires_at")
