"""workspaces: their table with `default`, and the workspace of users, sessions, runs and approvals

Revision ID: 0019
Revises: 0018
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code knows one workspace only: the rows it adds belong to `default`

DEFAULT = "wsp_" + "0" * 26
TABLES = ("users", "sessions", "runs", "approvals")
UNIQUE, OLD_UNIQUE = "uq_users_workspace_id_username", "uq_users_username"


def upgrade() -> None:
    op.create_table(
        "workspaces",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workspaces"),
        sa.UniqueConstraint("name", name="uq_workspaces_name"),
        if_not_exists=True,
    )
    op.execute(
        f"INSERT INTO workspaces (id, name, disabled, created_at) SELECT '{DEFAULT}', 'default', false, 0 "
        f"WHERE NOT EXISTS (SELECT 1 FROM workspaces WHERE id = '{DEFAULT}')"
    )
    gentle.release_locks()
    for table in TABLES:
        column = sa.Column("workspace_id", sa.String(32), nullable=False, server_default=DEFAULT)
        gentle.add_columns(table, column)
    gentle.create_index(UNIQUE, "users", ["workspace_id", "username"], unique=True)
    gentle.drop_unique(OLD_UNIQUE, "users")


def downgrade() -> None:
    gentle.add_unique(OLD_UNIQUE, "users", ["username"])
    gentle.drop_index(UNIQUE, "users")
    for table in reversed(TABLES):
        gentle.drop_columns(table, "workspace_id")
    op.drop_table("workspaces")
