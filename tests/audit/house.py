"""Audit over a real database: rows, their chain, and what a tamperer does to both."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.audit.chain import link_all
from service.audit.record import Action, record
from service.audit.verify import Verified, Verifier
from service.store.actor import Actor, acting_as
from service.store.database import Database
from service.types import DEFAULT_WORKSPACE

ADA = Actor("user", "usr_ada", "key_1")
TABLES = ("audit", "audit_links")


def write(db: Database, count: int = 1, actor: Actor = ADA) -> None:
    """Write rows, each in a transaction of its own."""
    with acting_as(actor):
        for number in range(count):
            db.transact(lambda tx, n=number: record(tx, Action.KEY_CREATED, f"key:key_{n}", number=n))


def linked(db: Database, count: int) -> list[dict[str, Any]]:
    """Write and link rows; return the links."""
    write(db, count)
    link_all(db)
    return links(db)


def links(db: Database) -> list[dict[str, Any]]:
    return read(db, "SELECT * FROM audit_links ORDER BY workspace_id, seq")


def read(db: Database, sql: str) -> list[dict[str, Any]]:
    return db.query(lambda tx: [dict(row) for row in tx.rows(sa.text(sql))])


def tamper(db: Database, *statements: str) -> None:
    """Change tables as their owner may, who drops what protects them."""
    with db.engine.connect() as connection:
        for table in TABLES:
            if db.sqlite:
                for what in ("update", "delete"):
                    connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_no_{what}")
            else:
                connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS {table}_append_only ON {table}")
        for statement in statements:
            connection.exec_driver_sql(statement)
        connection.commit()


def verify(db: Database, workspace_id: str = DEFAULT_WORKSPACE) -> Verified:
    return Verifier(db, workspace_id).verify()
