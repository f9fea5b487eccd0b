"""Schema changes that do not hold up a running service, for the files in `versions/`.

On PostgreSQL indexes are built and dropped CONCURRENTLY: readers and writers go on meanwhile. Every other change locks
its table for a moment, and a step locks one table at a time: `release_locks` stands between two. So a step may be cut
short after any of its parts, and each part must be able to run again: these functions find what is there already.

On SQLite a step is one transaction, and nothing of it stays when it is cut short.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

BUILT_BESIDE = "_new"  # ends the name of an index that takes another's place


def on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def release_locks() -> None:
    """Commit what the step has done so far. What stood before must be able to run again."""
    if on_postgresql():
        with op.get_context().autocommit_block():  # commits as it is entered, begins anew as it is left
            pass


def create_index(
    name: str, table: str, columns: Sequence[str], *, where: str | None = None, unique: bool = False
) -> None:
    """Create an index, for the rows of which `where` is true; rebuild one that a broken build left invalid."""
    rows = None if where is None else sa.text(where)
    if not on_postgresql():
        op.create_index(name, table, [*columns], unique=unique, sqlite_where=rows)
        return
    with op.get_context().autocommit_block():
        if _invalid(name):
            op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)
        op.create_index(
            name,
            table,
            [*columns],
            unique=unique,
            if_not_exists=True,
            postgresql_concurrently=True,
            postgresql_where=rows,
        )


def drop_index(name: str, table: str) -> None:
    if not on_postgresql():
        op.drop_index(name, table)
        return
    with op.get_context().autocommit_block():
        op.drop_index(name, table, if_exists=True, postgresql_concurrently=True)


def replace_index(name: str, table: str, columns: Sequence[str], *, where: str | None = None) -> None:
    """Give an index other columns or other rows. The old one serves until the new one is built."""
    if not on_postgresql():
        drop_index(name, table)
        create_index(name, table, columns, where=where)
        return
    beside = name + BUILT_BESIDE
    create_index(beside, table, columns, where=where)
    drop_index(name, table)
    op.execute(f"ALTER INDEX {beside} RENAME TO {name}")
    release_locks()


def replace_primary_key(name: str, table: str, columns: Sequence[str]) -> None:
    """Give a table another primary key, of columns that are NOT NULL. PostgreSQL only."""
    beside = name + BUILT_BESIDE
    create_index(beside, table, columns, unique=True)
    op.execute(
        f"ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {beside}"
    )
    release_locks()


def add_columns(table: str, *columns: sa.Column[object]) -> None:
    """Add columns that may be NULL and have no default: no row is written anew."""
    there = {"if_not_exists": True} if on_postgresql() else {}
    for column in columns:
        op.add_column(table, column, **there)
    release_locks()


def drop_columns(table: str, *names: str) -> None:
    """Drop columns that no code reads any more: see "Expand, then contract" in docs/operator.md."""
    there = {"if_exists": True} if on_postgresql() else {}
    for name in names:
        op.drop_column(table, name, **there)
    release_locks()


def _invalid(index: str) -> bool:
    query = sa.text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:index)")
    return bool(op.get_bind().execute(query, {"index": index}).scalar())
