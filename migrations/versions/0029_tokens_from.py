"""users: when their log-ins were ended, for an issuer's tokens that were not seen before

Revision ID: 0029
Revises: 0028
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations import gentle

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code takes an issuer's tokens from before, as it did


def upgrade() -> None:
    gentle.add_columns("users", sa.Column("tokens_from", sa.BigInteger()))


def downgrade() -> None:
    gentle.drop_columns("users", "tokens_from")
