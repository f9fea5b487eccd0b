"""sealed texts: columns that were as wide as a text may be are as wide as it is once it is sealed

Revision ID: 0028
Revises: 0027
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code reads a sealed text as it is stored: seal once no replica of it runs

# Widths before. SQLite does not enforce one.
WIDTHS = (
    ("api_keys", "name", 128),
    ("runs", "input", 200),
    ("runs", "request_id", 128),
    ("sessions", "title", 256),
)


def upgrade() -> None:
    for table, column, _ in WIDTHS if gentle.on_postgresql() else ():
        op.alter_column(table, column, type_=sa.Text())  # changes the catalogue only
        gentle.release_locks()


def downgrade() -> None:
    """Fail where a text is sealed."""
    for table, column, width in WIDTHS if gentle.on_postgresql() else ():
        op.alter_column(table, column, type_=sa.String(width))
        gentle.release_locks()
