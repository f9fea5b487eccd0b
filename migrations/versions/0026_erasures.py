"""erasures: erasures of users' data, and the decisions of a user about the calls of others

Revision ID: 0026
Revises: 0025
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code writes no rows

DEFAULT = "wsp_" + "0" * 26


def upgrade() -> None:
    gentle.create_index(
        "ix_approvals_decided_by", "approvals", ("decided_by",), where="decided_by IS NOT NULL"
    )
    op.create_table(
        "erasures",
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("workspace_id", sa.String(length=32), server_default=DEFAULT, nullable=False),
        sa.Column("asked_at", sa.BigInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("erased_at", sa.BigInteger(), nullable=True),
        sa.Column("verified_at", sa.BigInteger(), nullable=True),
        sa.Column("counts", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="pk_erasures"),
    )
    op.create_index("ix_erasures_next_at", "erasures", ["next_at"])


def downgrade() -> None:
    gentle.drop_index("ix_approvals_decided_by", "approvals")
    op.drop_table("erasures")
