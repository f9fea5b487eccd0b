"""Alembic's entry. The database is the one the settings name; every migration runs in one transaction."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import context

from config import load
from service.store.schema import metadata


def _engine() -> sa.Engine:
    url = context.config.attributes.get("url") or load().database_url
    return sa.create_engine(url, poolclass=sa.pool.NullPool)


def migrate() -> None:
    """Bring the database to the asked revision; two machines that start at once take turns."""
    with _engine().connect() as connection:
        sqlite = connection.dialect.name == "sqlite"
        if sqlite:
            connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        else:
            connection.execute(sa.text("SELECT pg_advisory_lock(7325711)"))
            connection.commit()
        context.configure(connection=connection, target_metadata=metadata, render_as_batch=sqlite)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()


migrate()
