"""Compatibility check of code and database: its encoding, and the revision of its schema.

Older code may use a database that a newer version has migrated if those migrations allow it. That code has no file of
theirs, so the database itself stores the oldest revision whose code runs on it: see `OLDEST_CODE` in
`migrations/versions/` and "Expand, then contract" in docs/operator.md.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from service.store.outages import Unfit
from service.store.schema import compatibility, runs
from service.store.transaction import Transaction, clock_ms

VERSIONS = Path(__file__).parents[2] / "migrations" / "versions"
_version = sa.table("alembic_version", sa.column("version_num"))


def revisions(versions: Path = VERSIONS) -> list[str]:
    """List the revisions this code has migrations for, oldest first: a file's name begins with its number."""
    return sorted(file.name.partition("_")[0] for file in versions.glob("[0-9]*_*.py"))


def check(connection: sa.Connection) -> None:
    """Raise `Unfit` for a database that this code must not use."""
    try:
        _check(connection)
    except sa.exc.ProgrammingError as error:
        raise Unfit("The user of DATABASE_URL may not read the tables.") from error


def _check(connection: sa.Connection) -> None:
    check_encoding(connection)
    known, found = revisions(), revision(connection)
    if found is None:
        if not sa.inspect(connection).has_table("users"):
            raise Unfit("The database is not migrated: run `alembic upgrade head`.")
    elif found in known:
        if found != known[-1]:
            raise Unfit(
                f"The database is at revision {found}, and this version of Slipway needs {known[-1]}: "
                "run `alembic upgrade head`."
            )
    elif not serves_older_code(connection, known):
        raise Unfit(too_new(found, known))


def clock(tx: Transaction) -> int:
    """Read the database's clock, as ms."""
    row = tx.row(sa.select(clock_ms().label("now")))
    assert row is not None
    return int(row["now"])


def read_newest_text(tx: Transaction) -> None:
    """Read the question of the newest run. Raises `KeyringUnavailable` where it is sealed and its key is not there."""
    tx.row(sa.select(runs.c.request, runs.c.user_id).order_by(runs.c.id.desc()).limit(1))


def check_encoding(connection: sa.Connection) -> None:
    """Raise `Unfit` unless the server encoding is UTF8: other encodings lose text."""
    if connection.dialect.name != "postgresql":
        return
    encoding = connection.execute(sa.text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise Unfit(
            f"The database has the encoding {encoding}, and Slipway needs UTF8: "
            "CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
        )


def revision(connection: sa.Connection) -> str | None:
    """Read the revision of the schema; None where no migration has run."""
    if not sa.inspect(connection).has_table(_version.name):
        return None
    found: str | None = connection.execute(sa.select(_version.c.version_num)).scalar()
    return found


def serves_older_code(connection: sa.Connection, known: list[str]) -> bool:
    """Return whether code of the revisions `known` runs on this database, migrated by newer code."""
    if not sa.inspect(connection).has_table(compatibility.name):
        return False
    return connection.execute(sa.select(compatibility.c.oldest_code)).scalar() in known


def too_new(found: str, known: list[str]) -> str:
    """Message for a database that is too new for this code."""
    return (
        f"The database is at revision {found}, which this version of Slipway (revision {known[-1]}) cannot work with: "
        f"start the newer version, or take the migration back with it (alembic downgrade {known[-1]})."
    )


def keep_oldest_code(connection: sa.Connection, oldest: str | None) -> None:
    """Store the oldest revision whose code runs on this database; None: nothing is migrated."""
    exists = sa.inspect(connection).has_table(compatibility.name)
    stored = connection.execute(sa.select(compatibility.c.oldest_code)).scalar() if exists else None
    if stored == oldest:
        return
    if exists:
        connection.execute(compatibility.delete())
    else:
        compatibility.create(connection)
    if oldest is not None:
        connection.execute(compatibility.insert(), {"id": 1, "oldest_code": oldest})
