"""Two roles on PostgreSQL, by the statements of docs/audit.md: the service's adds to the audit and changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from flask import Flask

from config import load
from service.app import create_app
from service.audit.chain import link_all
from service.audit.verify import verify_all
from service.wiring import Services
from tests.audit.house import TABLES
from tests.conftest import ROOT
from tests.made import NOWHERE, close
from tests.rules.world import PASSWORD
from tests.store.test_migrations import config
from tests.usage.conftest import postgres_url

__all__ = ["postgres_url"]
NAME, ROLE = "audit_roles", "slipway_service"


@pytest.fixture
def app(postgres_url: str, tmp_path: Path) -> Iterator[Flask]:
    """Application as the service's role, over a database that its owner has migrated."""
    server = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {NAME}")
    url = sa.make_url(postgres_url).set(drivername="postgresql+psycopg", database=NAME)
    command.upgrade(config(url.render_as_string(hide_password=False)), "head")
    owner = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with owner.connect() as connection:
        for statement in statements():
            connection.exec_driver_sql(statement)
    served = url.set(drivername="postgresql", username=ROLE, password="…").render_as_string(
        hide_password=False
    )
    parts = {"REDIS_URL": f"unix://{tmp_path}/no-redis.sock", "ANTHROPIC_BASE_URL": NOWHERE}
    app = create_app(
        load({"APP_ENV": "testing", "SLIPWAY_HOME": str(tmp_path), "DATABASE_URL": served, **parts})
    )
    yield app
    close(app)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {NAME} WITH (FORCE)")
        connection.exec_driver_sql(f"DROP ROLE {ROLE}")


def statements() -> list[str]:
    page = (ROOT / "docs" / "audit.md").read_text()
    blocks = re.findall(r"```sql\n(.*?)```", page, re.S)
    return [statement.strip() for statement in "".join(blocks).split(";") if statement.strip()]


def test_service_adds_to_the_audit_and_changes_nothing(app: Flask) -> None:
    services: Services = app.extensions["slipway"]
    db = services.infra.db
    user = services.auth.users.create("ada", PASSWORD)
    body = {"username": "ada", "password": PASSWORD}
    assert app.test_client().post("/v1/auth/login", json=body).status_code == 200
    services.auth.users.change(user.id, role="operator")
    services.auth.users.delete(user.id)
    link_all(db)
    (found,) = verify_all(db)
    assert (found.ok, found.checked) == (True, 4)
    for table in TABLES:
        for sql in (
            f"UPDATE {table} SET at = 1",
            f"DELETE FROM {table}",
            f"TRUNCATE {table}",
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
            f"DROP TRIGGER {table}_append_only ON {table}",
        ):
            with pytest.raises(sa.exc.ProgrammingError, match=r"permission denied|must be owner"):
                db.transact(lambda tx, sql=sql: tx.execute(sa.text(sql)))
    assert next(verify_all(db)).ok
