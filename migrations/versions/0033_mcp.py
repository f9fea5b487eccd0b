"""mcp: pinned tools, and credentials towards servers

Revision ID: 0033
Revises: 0032
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0032"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code knows no MCP tools


def upgrade() -> None:
    op.create_table(
        "mcp_tools",
        sa.Column("server", sa.String(32), nullable=False),
        sa.Column("tool", sa.String(64), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.Column("offered_digest", sa.String(64)),
        sa.Column("offered", sa.JSON()),
        sa.PrimaryKeyConstraint("server", "tool", name="pk_mcp_tools"),
    )
    op.create_table(
        "mcp_credentials",
        sa.Column("server", sa.String(32), nullable=False),
        sa.Column("user_id", sa.String(32), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("server", "user_id", name="pk_mcp_credentials"),
    )
    op.create_index("ix_mcp_credentials_user_id_server", "mcp_credentials", ["user_id", "server"])


def downgrade() -> None:
    op.drop_table("mcp_credentials")
    op.drop_table("mcp_tools")
