"""memory_notes: notes that agents keep about their users

Revision ID: 0040
Revises: 0039
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0040"
down_revision = "0039"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code knows no notes


def upgrade() -> None:
    op.create_table(
        "memory_notes",
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("holder", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("agent", sa.String(length=64)),
        sa.Column("untrusted", sa.JSON()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_memory_notes_user_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "holder", "digest", name="pk_memory_notes"),
        if_not_exists=True,
    )


def downgrade() -> None:
    op.drop_table("memory_notes", if_exists=True)
