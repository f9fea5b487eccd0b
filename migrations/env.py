"""Alembic entry point: migrate the database of the settings, or exit with one line that gives the reason."""

from __future__ import annotations

import sys
from contextlib import suppress

import sqlalchemy as sa
from alembic import context
from alembic.script import ScriptDirectory

from config import ConfigError, load
from migrations.steps import PATIENCE_SECONDS, Steps, configure, prepare
from migrations.turn import WAIT_SECONDS, turn
from service.store import fitness
from service.store.outages import NO_OPTION, NO_RIGHT, Unfit, cause_of
from service.store.postgres import connect_args


def _engine() -> sa.Engine:
    url = context.config.attributes.get("url") or _url_of_settings()
    return sa.create_engine(url, poolclass=sa.pool.NullPool, connect_args=connect_args(url))


def _url_of_settings() -> str:
    settings = load()
    if settings.database_url.startswith("sqlite"):
        with suppress(OSError):  # reported when its file cannot be opened
            settings.slipway_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    return settings.database_url


def _is_migration() -> bool:
    """Tell whether the command goes to a revision; `alembic current` and similar ones do not."""
    try:
        context.get_revision_argument()
    except KeyError:
        return False
    return True


def _is_newer(connection: sa.Connection, script: ScriptDirectory) -> bool:
    """Tell whether newer code has migrated this database, with this code still supported; else raises `Unfit`."""
    known, found = [each.revision for each in script.walk_revisions()][::-1], fitness.revision(connection)
    if found is None or found in known:
        return False
    if not fitness.serves_older_code(connection, known):
        raise Unfit(fitness.too_new(found, known))
    if not _is_migration() or context.get_revision_argument() != script.get_current_head():
        raise Unfit(
            f"It is at revision {found}, of which this version has no file: use the newer version for this."
        )
    print(
        f"The database is at the newer revision {found}, on which this version runs too: nothing to migrate."
    )
    return True


def _run_read_only(connection: sa.Connection, script: ScriptDirectory) -> None:
    """Run a command that changes nothing, without waiting for other migrations."""
    if not _is_newer(connection, script):
        connection.commit()
        configure(connection)
        with context.begin_transaction():
            context.run_migrations()


def _migrate(engine: sa.Engine, connection: sa.Connection, script: ScriptDirectory) -> None:
    """Migrate to the requested revision; machines that start at once take turns."""
    attributes = context.config.attributes  # time-outs, where the caller sets them
    with turn(engine, attributes.get("wait", WAIT_SECONDS)) as check_lock:
        prepare(connection)
        if _is_newer(connection, script):
            return
        connection.rollback()
        revision = context.get_revision_argument()
        Steps(connection, script, check_lock, attributes.get("patience", PATIENCE_SECONDS)).run(
            revision if isinstance(revision, str) else None
        )


def main() -> None:
    """Migrate, or exit with one line that gives the reason."""
    try:
        engine, script = _engine(), ScriptDirectory.from_config(context.config)
        with engine.connect() as connection:
            fitness.check_encoding(connection)
            connection.rollback()
            if _is_migration():
                _migrate(engine, connection, script)
            else:
                _run_read_only(connection, script)
    except ConfigError as error:
        sys.exit(str(error))
    except Unfit as error:
        sys.exit(f"The database cannot be migrated. {error}")
    except (sa.exc.OperationalError, sa.exc.InterfaceError) as error:
        sys.exit(f"The database cannot be migrated: {cause_of(error)}.")
    except sa.exc.ProgrammingError as error:
        if (cause := cause_of(error)) not in (NO_RIGHT, NO_OPTION):
            raise
        sys.exit(f"The database cannot be migrated: {cause}.")


main()
