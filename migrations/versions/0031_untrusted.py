"""approvals, messages, sessions: marks of untrusted text

Revision ID: 0031
Revises: 0030
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations import gentle

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # turns of older code have no mark, and count as untrusted


def upgrade() -> None:
    gentle.add_columns("approvals", sa.Column("untrusted", sa.JSON()))
    gentle.release_locks()
    gentle.add_columns("messages", sa.Column("untrusted", sa.JSON()))
    gentle.release_locks()
    gentle.add_columns("sessions", sa.Column("summary_untrusted", sa.JSON()))


def downgrade() -> None:
    gentle.drop_columns("sessions", "summary_untrusted")
    gentle.release_locks()
    gentle.drop_columns("messages", "untrusted")
    gentle.release_locks()
    gentle.drop_columns("approvals", "untrusted")
