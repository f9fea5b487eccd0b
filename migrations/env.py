"""Alembic's entry. The database is the one the settings name; every migration runs in one transaction."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.script import ScriptDirectory

from config import ConfigError, load
from service.store import fitness
from service.store.base import connect_args
from service.store.outages import Unfit, cause_of
from service.store.schema import metadata

TURN = 7325711  # the advisory lock of whoever migrates


def _engine() -> sa.Engine:
    url = context.config.attributes.get("url") or _url_of_settings()
    return sa.create_engine(url, poolclass=sa.pool.NullPool, connect_args=connect_args(url))


def _url_of_settings() -> str:
    settings = load()
    if settings.database_url.startswith("sqlite"):
        with suppress(OSError):  # told when its file cannot be opened
            settings.slipway_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return settings.database_url


def _tell(*, step: MigrationInfo, **_: Any) -> None:
    """Say what is done as it is done: a large table takes minutes."""
    done = "up to" if step.is_upgrade else "back from"
    script = step.up_revision
    if script is not None:
        print(f"alembic: {done} {script.revision}, {script.doc}", file=sys.stderr, flush=True)


def _left_alone(connection: sa.Connection, script: ScriptDirectory) -> bool:
    """Whether newer code has migrated this database, and this code runs on it. Raises `Unfit` where it does not."""
    known, found = [each.revision for each in script.walk_revisions()][::-1], fitness.revision(connection)
    if found is None or found in known:
        return False
    if not fitness.serves_older_code(connection, known):
        raise Unfit(fitness.too_new(found, known))
    try:
        wanted = context.get_revision_argument()
    except KeyError:  # a command that goes nowhere, such as `alembic current`
        wanted = None
    if wanted != script.get_current_head():
        raise Unfit(
            f"It is at revision {found}, of which this version has no file: use the newer version for this."
        )
    print(
        f"The database is at the newer revision {found}, on which this version runs too: nothing to migrate."
    )
    return True


def _oldest_code(connection: sa.Connection, script: ScriptDirectory) -> str | None:
    """The oldest revision whose code runs on the database as it is now."""
    found = MigrationContext.configure(connection).get_current_revision()
    if found is None:
        return None
    applied = [each for each in script.iterate_revisions(found, "base") if each is not None][::-1]
    order = [each.revision for each in applied]
    said = [getattr(each.module, "OLDEST_CODE", each.revision) for each in applied]
    return max(said, key=order.index)


def _migrate(connection: sa.Connection) -> None:
    """Bring the database to the asked revision; two machines that start at once take turns."""
    script = ScriptDirectory.from_config(context.config)
    sqlite = connection.dialect.name == "sqlite"
    fitness.check_encoding(connection)
    if sqlite:
        connection.exec_driver_sql("PRAGMA journal_mode=WAL")
    else:
        connection.execute(sa.text("SELECT pg_advisory_lock(:turn)"), {"turn": TURN})
    connection.commit()
    if _left_alone(connection, script):
        return
    connection.commit()
    context.configure(
        connection=connection, target_metadata=metadata, render_as_batch=sqlite, on_version_apply=_tell
    )
    with context.begin_transaction():
        context.run_migrations()
        fitness.keep_oldest_code(connection, _oldest_code(connection, script))
    connection.commit()


def main() -> None:
    """Migrate, or end with one line that says why not."""
    try:
        with _engine().connect() as connection:
            _migrate(connection)
    except ConfigError as error:
        sys.exit(str(error))
    except Unfit as error:
        sys.exit(f"The database cannot be migrated. {error}")
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        sys.exit(f"The database cannot be migrated: {cause_of(error)}.")


main()
