"""feedback: what the user of a run thinks of it

Revision ID: 0012
Revises: 0011
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only adds a table


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("run_id", sa.String(32), nullable=False),
        sa.Column("score", sa.Integer(), nullable=False),
        sa.Column("comment", sa.Text()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name="fk_feedback_run_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("run_id", name="pk_feedback"),
    )


def downgrade() -> None:
    op.drop_table("feedback")
