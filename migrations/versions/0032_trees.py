"""holds: of a tree of sub-agents, and of the model calls in it

Revision ID: 0032
Revises: 0031
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations import gentle

revision = "0032"
down_revision = "0031"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code settles a tree that was left behind at its worst, and starts none


def upgrade() -> None:
    gentle.add_columns("holds", sa.Column("tree_id", sa.String(32)))


def downgrade() -> None:
    gentle.drop_columns("holds", "tree_id")
