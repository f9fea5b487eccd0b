"""Upsert that adds: values of a row that exists become its own plus the new ones."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles


class InsertAdding(sa.Insert):
    """Insert that adds to the sums of an existing row: to every column that is not of the primary key."""

    inherit_cache = True


@compiles(InsertAdding)
def _insert_adding(element: Any, compiler: Any, **kw: Any) -> str:
    table = element.table
    keys = [column.name for column in table.primary_key]
    sums = [column.name for column in table.columns if column.name not in keys]
    added = ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in sums)
    return f"{compiler.visit_insert(element, **kw)} ON CONFLICT ({', '.join(keys)}) DO UPDATE SET {added}"
