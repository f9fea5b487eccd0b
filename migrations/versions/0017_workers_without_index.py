"""workers: no index on the lease, which each of them renews every few seconds

Revision ID: 0017
Revises: 0016
"""

from __future__ import annotations

from migrations import gentle

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None
OLDEST_CODE = (
    "0002"  # only an index: older code runs the same statements, over as many rows as there are processes
)

INDEX = "ix_workers_alive_until"


def upgrade() -> None:
    gentle.drop_index(INDEX, "workers")


def downgrade() -> None:
    gentle.create_index(INDEX, "workers", ["alive_until"])
