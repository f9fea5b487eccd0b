"""agent_stops: the kill switch

Revision ID: 0025
Revises: 0024
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only adds a table


def upgrade() -> None:
    op.create_table(
        "agent_stops",
        sa.Column("agent", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(500), nullable=False),
        sa.Column("stopped_by", sa.String(32)),
        sa.Column("stopped_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agent", name="pk_agent_stops"),
    )


def downgrade() -> None:
    op.drop_table("agent_stops")
