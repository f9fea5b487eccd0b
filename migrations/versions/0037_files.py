"""files, run_files, session_files: images and documents, once for each owner

Revision ID: 0037
Revises: 0036
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code refuses images and documents


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("user_id", sa.String(length=32), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("media_type", sa.String(length=64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("data", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_files_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", "digest", name="pk_files"),
        if_not_exists=True,
    )
    for table, holder in (("run_files", "run"), ("session_files", "session")):
        op.create_table(
            table,
            sa.Column(f"{holder}_id", sa.String(length=32), nullable=False),
            sa.Column("digest", sa.String(length=64), nullable=False),
            sa.Column("user_id", sa.String(length=32), nullable=False),
            sa.ForeignKeyConstraint(
                [f"{holder}_id"], [f"{holder}s.id"], name=f"fk_{table}_{holder}_id", ondelete="CASCADE"
            ),
            sa.PrimaryKeyConstraint(f"{holder}_id", "digest", name=f"pk_{table}"),
            if_not_exists=True,
        )
        columns = ["user_id", "digest"]
        op.create_index(f"ix_{table}_user_id_digest", table, columns, if_not_exists=True)


def downgrade() -> None:
    for table in ("session_files", "run_files", "files"):
        op.drop_table(table, if_exists=True)
