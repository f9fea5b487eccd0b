"""workspaces.guardrails: guardrails of all runs of a workspace; sessions.placeholders: values that a model did not see

Revision ID: 0038
Revises: 0037
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations import gentle

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code knows no guardrails: set them once no process of it is left


def upgrade() -> None:
    gentle.add_columns("workspaces", sa.Column("guardrails", sa.JSON()))
    gentle.add_columns("sessions", sa.Column("placeholders", sa.JSON()))


def downgrade() -> None:
    gentle.drop_columns("sessions", "placeholders")
    gentle.drop_columns("workspaces", "guardrails")
