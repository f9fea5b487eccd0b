"""Schema of the service in a test's database, copied from one that was made once: its statements take a while."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from service.store.schema import metadata

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = "tables"
# For what is refused before a database is asked: the other one would only be made in vain.
ON_SQLITE = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@cache
def _sqlite_image() -> bytes:
    """Make the tables in memory, in a file format that a database in WAL mode may take over."""
    engine = sa.create_engine("sqlite://")
    metadata.create_all(engine)
    with closing(engine.raw_connection()) as made:
        driver = made.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        image = driver.serialize()
    engine.dispose()
    return image


def create_tables(engine: sa.Engine) -> None:
    """Make the tables in an empty database; one of `postgres_database` has them."""
    if engine.dialect.name != "sqlite":
        if not sa.inspect(engine).has_table("runs"):
            metadata.create_all(engine)
        return
    with closing(engine.raw_connection()) as connection, closing(sqlite3.connect(":memory:")) as image:
        driver = connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        if driver.execute("SELECT 1 FROM sqlite_schema").fetchone():
            return  # of another process or application over the same file
        image.deserialize(_sqlite_image())
        image.backup(driver)


def quicken(server: str) -> None:
    """Have a PostgreSQL that outlives no test not wait for its disk."""
    with _connected(server) as connection:
        for setting in ("fsync", "full_page_writes", "autovacuum"):
            connection.execute(sa.text(f"ALTER SYSTEM SET {setting} = off"))
        connection.execute(sa.text("SELECT pg_reload_conf()"))


@cache
def _template(server: str) -> str:
    """Make the database that others of this server are copies of, as if it were migrated; return its name."""
    with _connected(server) as connection:
        connection.execute(sa.text(f"CREATE DATABASE {TEMPLATE}"))
    engine = sa.create_engine(_of(server, TEMPLATE), poolclass=sa.NullPool)
    metadata.create_all(engine)
    with engine.begin() as connection:
        command = MigrationContext.configure(connection)
        command.stamp(ScriptDirectory(str(ROOT / "migrations")), "head")
    return TEMPLATE


def postgres_database(server: str, name: str) -> str:
    """Make a database that has the tables; return its URL."""
    template = _template(server)
    with _connected(server) as connection:
        connection.execute(sa.text(f"DROP DATABASE IF EXISTS {name}"))
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    return _of(server, name)


def drop_database(server: str, name: str) -> None:
    with _connected(server) as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


def _of(server: str, name: str) -> str:
    return server.replace("/postgres?", f"/{name}?")


@contextmanager
def _connected(server: str) -> Iterator[sa.Connection]:
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        yield connection
