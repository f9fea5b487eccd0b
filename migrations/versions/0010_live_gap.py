"""runs: the attempt that told its client what the live stream does not hold

Revision ID: 0010
Revises: 0009
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations import gentle

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only adds a column that may be empty


def upgrade() -> None:
    gentle.add_columns("runs", sa.Column("live_gap_attempt", sa.Integer()))


def downgrade() -> None:
    gentle.drop_columns("runs", "live_gap_attempt")
