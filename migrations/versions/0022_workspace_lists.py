"""workspace_lists: lists and caps of a workspace; keys of a disabled one are refused at once

Revision ID: 0022
Revises: 0021
"""

from __future__ import annotations

import sqlalchemy as sa

from migrations import gentle

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code knows one workspace only, and has nothing in these indexes

DEFAULT = "wsp_" + "0" * 26
OF_OTHERS = f"workspace_id <> '{DEFAULT}'"
TABLES = ("caps", "holds")
INDEXES = (
    ("users", ("workspace_id", "id"), OF_OTHERS),
    ("sessions", ("workspace_id", "id"), OF_OTHERS),
    ("runs", ("workspace_id", "agent", "id"), OF_OTHERS),
    (
        "runs",
        ("workspace_id", "agent", "status", "id"),
        f"{OF_OTHERS} AND status IN ('failed', 'cancelled')",
    ),
    ("approvals", ("workspace_id", "id"), OF_OTHERS),
    ("approvals", ("workspace_id", "status", "id"), OF_OTHERS),
    ("caps", ("workspace_id", "scope", "period"), OF_OTHERS),
)


def _name(table: str, columns: tuple[str, ...]) -> str:
    return "_".join(("ix", table, *columns))


def upgrade() -> None:
    gentle.add_columns("workspaces", sa.Column("changed_at", sa.BigInteger()))
    for table in TABLES:
        column = sa.Column("workspace_id", sa.String(32), nullable=False, server_default=DEFAULT)
        gentle.add_columns(table, column)
    for table, columns, where in INDEXES:
        gentle.create_index(_name(table, columns), table, columns, where=where)


def downgrade() -> None:
    for table, columns, _ in reversed(INDEXES):
        gentle.drop_index(_name(table, columns), table)
    for table in reversed(TABLES):
        gentle.drop_columns(table, "workspace_id")
    gentle.drop_columns("workspaces", "changed_at")
