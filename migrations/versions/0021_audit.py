"""audit: append-only rows, their chain, and what the chain lacks yet

Revision ID: 0021
Revises: 0020
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code writes no rows

INDEXES = {
    "ix_audit_workspace_id_id": ["workspace_id", "id"],
    "ix_audit_workspace_id_action_id": ["workspace_id", "action", "id"],
    "ix_audit_workspace_id_user_id_id": ["workspace_id", "user_id", "id"],
    "ix_audit_workspace_id_subject_id": ["workspace_id", "subject", "id"],
}
TABLES = ("audit", "audit_links")
_REFUSE = """CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only', ERRCODE = 'insufficient_privilege';
END $$"""


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("workspace_id", sa.String(32), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("actor", sa.String(16), nullable=False),
        sa.Column("user_id", sa.String(32)),
        sa.Column("key_id", sa.String(32)),
        sa.Column("subject", sa.String(192), nullable=False),
        sa.Column("address", sa.String(64)),
        sa.Column("request_id", sa.String(128)),
        sa.Column("result", sa.String(16), nullable=False),
        sa.Column("details", sa.JSON(none_as_null=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit"),
    )
    op.create_table(
        "audit_links",
        sa.Column("workspace_id", sa.String(32), nullable=False),
        sa.Column("seq", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("audit_id", sa.String(32), nullable=False),
        sa.Column("previous", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "seq", name="pk_audit_links"),
    )
    op.create_table(
        "audit_unlinked",
        sa.Column("audit_id", sa.String(32), nullable=False),
        sa.Column("workspace_id", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("audit_id", name="pk_audit_unlinked"),
    )
    for name, columns in INDEXES.items():  # of new tables, in the same transaction
        op.create_index(name, "audit", columns)
    op.create_index("uq_audit_links_audit_id", "audit_links", ["audit_id"], unique=True)
    for table in TABLES:
        _refuse_changes(table)


def _refuse_changes(table: str) -> None:
    if gentle.on_postgresql():
        op.execute(_REFUSE)
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()"
        )
        return
    for what in ("update", "delete"):
        op.execute(
            f"CREATE TRIGGER {table}_no_{what} BEFORE {what} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
        )


def downgrade() -> None:
    for table in ("audit_unlinked", "audit_links", "audit"):
        op.drop_table(table)
    if gentle.on_postgresql():
        op.execute("DROP FUNCTION IF EXISTS audit_is_append_only()")
