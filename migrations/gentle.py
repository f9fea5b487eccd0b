"""Online schema changes for the files in `versions/`: they do not block a running service.

On PostgreSQL indexes are built and dropped CONCURRENTLY, beside readers and writers. Any other change locks its table
for a moment, and a step locks one table at a time, with `release_locks` between two. So a step may be interrupted after
any of its parts, and each part must be idempotent, as these functions are.

On SQLite a step is one transaction, rolled back when it is interrupted.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

BUILT_BESIDE = "_new"  # suffix of an index that replaces another


def on_postgresql() -> bool:
    return op.get_bind().dialect.name == "postgresql"


def release_locks() -> None:
    """Commit the step so far; everything before must be idempotent."""
    if on_postgresql():
        with op.get_context().autocommit_block():  # commits on entry, begins on exit
            pass


def create_index(
    name: str, table: str, columns: Sequence[str], *, where: str | None = None, unique: bool = False
) -> None:
    """Create an index, partial with `where`; rebuild one that an interrupted build left invalid."""
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
    """Replace an index by one with other columns or rows; the old one is in use until the new one is built."""
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
    """Replace the primary key of a table by NOT NULL columns. PostgreSQL only."""
    beside = name + BUILT_BESIDE
    create_index(beside, table, columns, unique=True)
    op.execute(
        f"ALTER TABLE {table} DROP CONSTRAINT {name}, ADD CONSTRAINT {name} PRIMARY KEY USING INDEX {beside}"
    )
    release_locks()


def add_columns(table: str, *columns: sa.Column[object]) -> None:
    """Add columns that are nullable or have a constant default: no row is rewritten."""
    options = {"if_not_exists": True} if on_postgresql() else {}
    for column in columns:
        op.add_column(table, column, **options)
    release_locks()


def widen_text(table: str, column: str, length: int) -> None:
    """Let a text column have `length` characters; no row is rewritten. SQLite copies the table, to say so."""
    wider = sa.String(length)
    if on_postgresql():
        op.alter_column(table, column, type_=wider)
        release_locks()
        return
    with op.batch_alter_table(table) as batch:
        batch.alter_column(column, type_=wider)


def drop_columns(table: str, *names: str) -> None:
    """Drop columns that no code reads any more: see "Expand, then contract" in docs/operator.md."""
    options = {"if_exists": True} if on_postgresql() else {}
    for name in names:
        op.drop_column(table, name, **options)
    release_locks()


def drop_unique(name: str, table: str) -> None:
    """Drop a unique constraint; SQLite copies the table."""
    if on_postgresql():
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
        release_locks()
        return
    with op.batch_alter_table(table) as batch:
        batch.drop_constraint(name, type_="unique")


def add_unique(name: str, table: str, columns: Sequence[str]) -> None:
    """Add a unique constraint, its index built beside readers and writers; SQLite copies the table."""
    if not on_postgresql():
        with op.batch_alter_table(table) as batch:
            batch.create_unique_constraint(name, [*columns])
        return
    drop_unique(name, table)  # of an interrupted step
    create_index(name, table, columns, unique=True)
    op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}")
    release_locks()


def _invalid(index: str) -> bool:
    query = sa.text("SELECT NOT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:index)")
    return bool(op.get_bind().execute(query, {"index": index}).scalar())
