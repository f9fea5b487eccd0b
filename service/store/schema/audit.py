"""Tables of the audit: append-only rows, their chain of hashes, and the rows that the chain lacks yet."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, Index, String

from service.store.schema.base import Json, metadata

# No foreign keys: a row outlives its user and key, and must not lock theirs.
audit = sa.Table(
    "audit",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("workspace_id", String(32), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("action", String(32), nullable=False),
    Column("actor", String(16), nullable=False),
    Column("user_id", String(32)),
    Column("key_id", String(32)),
    Column("subject", String(192), nullable=False),
    Column("address", String(64)),
    Column("request_id", String(128)),
    Column("result", String(16), nullable=False),
    Column("details", Json, nullable=False),
    Index("ix_audit_workspace_id_id", "workspace_id", "id"),
    Index("ix_audit_workspace_id_action_id", "workspace_id", "action", "id"),
    Index("ix_audit_workspace_id_user_id_id", "workspace_id", "user_id", "id"),
    Index("ix_audit_workspace_id_subject_id", "workspace_id", "subject", "id"),
)

audit_links = sa.Table(
    "audit_links",
    metadata,
    Column("workspace_id", String(32), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("audit_id", String(32), nullable=False),
    Column("previous", String(64), nullable=False),
    Column("hash", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("uq_audit_links_audit_id", "audit_id", unique=True),
)

# Written with its row, deleted with its link: so no search of the two tables finds what is due.
audit_unlinked = sa.Table(
    "audit_unlinked",
    metadata,
    Column("audit_id", String(32), primary_key=True),
    Column("workspace_id", String(32), nullable=False),
)

_REFUSE = """CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN
  RAISE EXCEPTION USING MESSAGE = TG_TABLE_NAME || ' is append-only', ERRCODE = 'insufficient_privilege';
END $$"""


def append_only(table: str, dialect: str) -> list[str]:
    """Return the statements that make the database refuse any change of a table's rows."""
    if dialect == "sqlite":
        return [
            f"CREATE TRIGGER {table}_no_{what} BEFORE {what} ON {table} "
            f"BEGIN SELECT RAISE(ABORT, '{table} is append-only'); END"
            for what in ("update", "delete")
        ]
    return [
        _REFUSE,
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
        "FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()",
    ]


def _guard(table: sa.Table, connection: sa.Connection, **_: object) -> None:
    for statement in append_only(table.name, connection.dialect.name):
        connection.exec_driver_sql(statement)


for _table in (audit, audit_links):
    sa.event.listen(_table, "after_create", _guard)
