"""runs: what a list of them shows, in columns of its own, so that it does not read whole requests and answers

Revision ID: 0009
Revises: 0008
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations import gentle

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # only adds columns that may be empty: lists then show none for the runs of older code

COLUMNS = (
    ("input", sa.String(200)),
    ("steps", sa.Integer()),
    ("model", sa.String(128)),
    ("stop_reason", sa.String(32)),
)


def upgrade() -> None:
    gentle.add_columns("runs", *(sa.Column(name, kind) for name, kind in COLUMNS))


def downgrade() -> None:
    gentle.drop_columns("runs", *(name for name, _ in reversed(COLUMNS)))
