"""Table queries: one simple SELECT from a question, by fixed rules, and its result as a sentence.

A question is answered from a table if it asks for a number ("how many", "total", "average", "highest", "lowest"),
names a numeric column, and names a value, a month, a year or a column to group by.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import orjson

from offline_model.shapes import Json
from offline_model.text import stems

_TABLE = re.compile(r"^(\w+)\((.*)\), \d+ rows$", re.MULTILINE)
_COLUMN = re.compile(r"(\w+) (INTEGER|REAL|TEXT)(?: (of|like) ((?:'(?:[^']|'')*'/?)+))?")
_VALUE = re.compile(r"'((?:[^']|'')*)'")
_FUNCTIONS = (
    ("AVG", re.compile(r"\b(?:average|mean)\b", re.IGNORECASE)),
    ("MAX", re.compile(r"\b(?:highest|largest|most|maximum)\b", re.IGNORECASE)),
    ("MIN", re.compile(r"\b(?:lowest|smallest|fewest|minimum)\b", re.IGNORECASE)),
    ("SUM", re.compile(r"\b(?:how many|how much|total|sum|number of)\b", re.IGNORECASE)),
)
_MONTHS = "january february march april may june july august september october november december".split()  # noqa: SIM905
_MONTH = re.compile(rf"\b({'|'.join(_MONTHS)})\s+(\d{{4}})\b", re.IGNORECASE)
_IN_FIGURES = re.compile(r"\b\d{4}-(?:0[1-9]|1[0-2])\b")
_YEAR = re.compile(r"\b(?:in|of|for|during)\s+(\d{4})\b", re.IGNORECASE)
_BY = re.compile(r"\b(?:by|per|for each)\s+(\w+)", re.IGNORECASE)
MAX_GROUPS = 20  # groups told in a sentence


@dataclass(frozen=True)
class Column:
    """Column as the tool's description lists it; `values` of a text, all of them if `few`."""

    name: str
    kind: str
    values: tuple[str, ...]
    few: bool


def query(tool: Json, question: str) -> str | None:
    """Write the query for a question; None if no table of the tool fits it."""
    function = next((name for name, pattern in _FUNCTIONS if pattern.search(question)), None)
    for name, columns in _tables(str(tool.get("description") or "")):
        measure = _measure(columns, question)
        filters, group = _filters(columns, question), _group(columns, question)
        if function is None or measure is None or not (filters or group):
            continue
        shown = f"{function}({measure}) AS {measure}"
        where = f" WHERE {' AND '.join(filters)}" if filters else ""
        by = f" GROUP BY {group} ORDER BY {group}" if group else ""
        return f"SELECT {f'{group}, ' if group else ''}{shown} FROM {name}{where}{by}"
    return None


def sentence(text: str, sql: str) -> str | None:
    """Tell a query's result; None if the text is no result of one."""
    try:
        found = orjson.loads(text)
        columns, rows = found["columns"], found["rows"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    if not rows:
        return f"The tables have no row for {sql}."
    told = "; ".join(_row(row) for row in rows[:MAX_GROUPS])
    name = str(columns[-1]).replace("_", " ")
    return f"By the tables, {name}: {told} ({sql})."


def _row(row: list[object]) -> str:
    *groups, value = row
    number = (
        f"{value:,}"
        if isinstance(value, int)
        else f"{value:,.2f}"
        if isinstance(value, float)
        else str(value)
    )
    return " ".join([*map(str, groups), number])


def _tables(description: str) -> list[tuple[str, list[Column]]]:
    return [
        (name, [_column(*found) for found in _COLUMN.findall(listed)])
        for name, listed in _TABLE.findall(description)
    ]


def _column(name: str, kind: str, word: str, values: str) -> Column:
    return Column(name, kind, tuple(one.replace("''", "'") for one in _VALUE.findall(values)), word == "of")


def _measure(columns: list[Column], question: str) -> str | None:
    """Find the numeric column with the most words in the question."""
    asked = stems(question)
    scored = [(len(stems(one.name) & asked), one.name) for one in columns if one.kind != "TEXT"]
    best = max(scored, key=lambda pair: pair[0], default=(0, ""))
    return best[1] if best[0] else None


def _filters(columns: list[Column], question: str) -> list[str]:
    filters = []
    for column in columns:
        if column.kind == "TEXT" and column.few:
            named = [
                one for one in column.values if re.search(rf"\b{re.escape(one)}\b", question, re.IGNORECASE)
            ]
            listed = ", ".join("'{}'".format(one.replace("'", "''")) for one in named)
            filters += [f"{column.name} IN ({listed})"] if named else []
        elif column.kind == "TEXT" and re.fullmatch(r"\d{4}-\d\d", "".join(column.values)):
            filters += _period(column.name, question)
    return filters


def _period(column: str, question: str) -> list[str]:
    months = [f"'{year}-{_MONTHS.index(month.lower()) + 1:02}'" for month, year in _MONTH.findall(question)]
    months += [f"'{month}'" for month in _IN_FIGURES.findall(question)]
    if months:
        return [f"{column} IN ({', '.join(months)})"]
    return [f"{column} LIKE '{year}-%'" for year in _YEAR.findall(question)[:1]]


def _group(columns: list[Column], question: str) -> str | None:
    named = {word for found in _BY.findall(question) for word in stems(found)}
    return next((one.name for one in columns if one.kind == "TEXT" and stems(one.name) & named), None)
