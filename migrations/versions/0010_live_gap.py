"""runs: the attempt that told its client what the live stream does not hold

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only adds a column that may be empty


def upgrade() -> None:
    op.add_column("runs", sa.Column("live_gap_attempt", sa.Integer()))


def downgrade() -> None:
    op.drop_column("runs", "live_gap_attempt")
