"""Tool source of `query_table`, for an agent with CSV files in its folder `tables/`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from service.tools.base import Tool, ToolContext, ToolFailed, tool
from service.tools.sources.base import SourceFault
from service.tools.tables import MAX_SQL, Column, QueryFailed, Table, TableFault, Tables

DESCRIPTION = """Ask the agent's tables by one SELECT of SQLite's SQL. Use it for counts, totals and comparisons.

{tables}

Args:
    sql: One SELECT over these tables. At most 200 rows are shown."""
MAX_LISTED = 3_000  # characters of the list of tables


class TableTools:
    """Tool source of the tables in an agent's folder, if present."""

    kind = "built-in"
    file = "tables"

    def tools(self, folder: Path) -> Mapping[str, Tool]:
        place = folder / "tables"
        if not any(place.glob("*.csv")):
            return {}
        try:
            tables = Tables(place)
        except TableFault as fault:
            where = fault.path.relative_to(folder).as_posix()
            raise SourceFault(where, fault.line, fault.detail) from None
        return {"query_table": _query_tool(tables)}


def _query_tool(tables: Tables) -> Tool:
    def query_table(
        sql: Annotated[str, Field(min_length=1, max_length=MAX_SQL)], context: ToolContext
    ) -> object:
        try:
            found = tables.query(sql, context.deadline - time.monotonic())
        except QueryFailed as failed:
            raise ToolFailed(str(failed)) from None
        told: dict[str, object] = {"columns": found.columns, "rows": found.rows}
        return {**told, "note": f"There are more rows; {len(found.rows)} are shown."} if found.cut else told

    query_table.__doc__ = DESCRIPTION.format(tables=_listed(tables.tables))
    made = tool(idempotent=True, risk="read", timeout=10, trusted=True)(query_table)
    return replace(made, local=True)


def _listed(tables: tuple[Table, ...]) -> str:
    """List tables and columns for the model: `usage(month TEXT like '2026-01', teams INTEGER), 200 rows`."""
    lines = (f"{one.name}({', '.join(map(_described, one.columns))}), {one.rows} rows" for one in tables)
    return "\n".join(lines)[:MAX_LISTED]


def _described(column: Column) -> str:
    values = ["'{}'".format(value.replace("'", "''")) for value in column.values]
    word = " like " if len(values) == 1 else " of " if values else ""
    return f"{column.name} {column.kind}{word}{'/'.join(values)}"
