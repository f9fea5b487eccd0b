"""Tables of an agent's folder: CSV files, read into a SQLite database in memory, and asked by read-only SQL.

A query sees nothing but the tables: the authorizer allows SELECT, reading and harmless functions, a deadline stops it,
and its values, rows and cells are bounded.
"""

from __future__ import annotations

import csv
import io
import math
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

MAX_FILES = 20
MAX_BYTES = 4 * 1024 * 1024  # of all files of an agent
MAX_ROWS = 100_000  # of all tables of an agent
MAX_COLUMNS = 50
MAX_CELL = 2_000  # characters of a cell in a file
FEW_VALUES, MAX_SAMPLE = 8, 30  # values of a text column that the model is shown, and their characters
MAX_SQL = 4_000  # characters of a query
MAX_RESULT_ROWS = 200
MAX_RESULT_CELL = 300  # characters of a cell in a result; a result has 20,000 in all
MAX_VALUE = 200_000  # bytes of any value in a query
MAX_QUERIES = 4  # at once in this process
SECONDS = 3.0  # for a query
STEPS = 10_000  # virtual machine instructions between two looks at the clock
MAX_PART = 1_000  # characters of a text that is looked for in others
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})")
_REAL = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}")
_IN_FUNCTION = "user-defined function"  # in SQLite's message for an exception of `_bounded`
_places = threading.BoundedSemaphore(MAX_QUERIES)
_FUNCTIONS_WORDS = (
    "abs avg ceil ceiling coalesce count date datetime floor group_concat ifnull iif instr julianday "
    "length like lower ltrim max min mod nullif replace round rtrim sign strftime substr substring sum "
    "time total trim typeof upper row_number rank dense_rank lag lead first_value last_value ntile "
    "unixepoch"
)
_FUNCTIONS = frozenset(_FUNCTIONS_WORDS.split())
_ACTIONS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)


# SQLite's own take the product of the lengths, and no look at the clock: `instr(a, b)` of long texts takes minutes.
_TEXT_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "instr": lambda text, part: text.find(part) + 1,
    "replace": lambda text, part, by: text.replace(part, by) if part else text,
    "trim": str.strip,
    "ltrim": str.lstrip,
    "rtrim": str.rstrip,
}


class TableFault(Exception):
    """Raised for a file that is no table, at a line of it; 0: the whole file. The message is for the author."""

    def __init__(self, path: Path, line: int, detail: str) -> None:
        super().__init__(detail)
        self.path = path
        self.line = line
        self.detail = detail


class QueryFailed(Exception):
    """Raised for a query that is refused or fails. The message is for the model."""


class Column(NamedTuple):
    """Column of a table. `kind`: INTEGER, REAL or TEXT; `values`: of a text all, if they are few, else one."""

    name: str
    kind: str
    values: tuple[str, ...] = ()


class Table(NamedTuple):
    name: str
    columns: tuple[Column, ...]
    rows: int


class Result(NamedTuple):
    columns: list[str]
    rows: list[list[Any]]
    cut: bool  # there are more rows


class Tables:
    """Tables of one agent, asked by several threads: each query has a connection and a copy of its own."""

    def __init__(self, folder: Path) -> None:
        """Read `folder`/*.csv, one or more. Raises `TableFault`."""
        with closing(sqlite3.connect(":memory:")) as made:
            self.tables = tuple(_load(made, path, text) for path, text in _files(folder))
            if sum(table.rows for table in self.tables) > MAX_ROWS:
                raise TableFault(folder, 0, f"the tables together must not have more than {MAX_ROWS} rows")
            made.commit()
            self._image = made.serialize()

    def query(self, sql: str, seconds: float = SECONDS) -> Result:
        """Run one SELECT. Raises `QueryFailed`."""
        deadline = time.monotonic() + min(seconds, SECONDS)
        if not _places.acquire(timeout=max(0.0, min(seconds, SECONDS))):
            raise QueryFailed("Too many queries are running: try again later.")
        connection = sqlite3.connect(":memory:")
        try:
            connection.deserialize(self._image)
            _confine(connection, deadline)
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise QueryFailed("Send one SELECT.")
            found = cursor.fetchmany(MAX_RESULT_ROWS + 1)
            rows = [list(map(_cell, row)) for row in found[:MAX_RESULT_ROWS]]
            return Result([column[0] for column in cursor.description], rows, len(found) > MAX_RESULT_ROWS)
        except (sqlite3.Error, sqlite3.Warning, MemoryError, ValueError, OverflowError) as error:
            raise QueryFailed(_told(error, deadline)) from None
        finally:
            connection.close()
            _places.release()


def _confine(connection: sqlite3.Connection, deadline: float) -> None:
    """Allow reading alone, and bound time and values."""
    connection.execute("PRAGMA temp_store = FILE")  # a query that sorts much takes disk, and no memory
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, MAX_SQL)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100)
    connection.setlimit(sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 100)
    connection.setlimit(sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 20)
    for name, work in _TEXT_FUNCTIONS.items():
        count = 3 if name == "replace" else 2
        connection.create_function(name, count, _bounded(work, deadline), deterministic=True)
    connection.set_authorizer(_authorize)
    connection.set_progress_handler(lambda: time.monotonic() > deadline, STEPS)


def _bounded(work: Callable[..., Any], deadline: float) -> Callable[..., Any]:
    """Return a function of SQL on texts. Its `ValueError` for too much data, or after the deadline, ends the query."""

    def call(*given: Any) -> Any:
        if None in given:
            return None
        text, part, *by = (
            value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in given
        )
        grown = len(text) + (text.count(part) * len(by[0]) if by and part else 0)
        if time.monotonic() > deadline or len(part) > MAX_PART or grown > MAX_VALUE:
            raise ValueError
        return work(text, part, *by)

    return call


def _authorize(action: int, one: str | None, two: str | None, base: str | None, view: str | None) -> int:
    allowed = action in _ACTIONS
    if action == sqlite3.SQLITE_FUNCTION:
        allowed = (two or "").lower() in _FUNCTIONS
    elif action == sqlite3.SQLITE_READ:
        allowed = not (one or "").lower().startswith(("sqlite_", "pragma_"))
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def _told(error: Exception, deadline: float) -> str:
    text = str(error)
    if ("interrupted" in text or _IN_FUNCTION in text) and time.monotonic() > deadline:
        return f"The query took longer than {SECONDS:g} s: ask for less."
    if "not authorized" in text or "prohibited" in text:
        return "Only one SELECT over the listed tables, with ordinary functions, is allowed."
    if isinstance(error, MemoryError) or "too big" in text or "full" in text or _IN_FUNCTION in text:
        return "The query makes too much data: ask for less."
    if "one statement at a time" in text:
        return "Send one SELECT."
    return f"SQLite: {text[:300]}"


def _cell(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return (
        value
        if not isinstance(value, str) or len(value) <= MAX_RESULT_CELL
        else value[: MAX_RESULT_CELL - 1] + "…"
    )


def _files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield tables' files with their text. Raises `TableFault`."""
    paths = sorted(path for path in folder.glob("*.csv") if not path.name.startswith("."))
    if len(paths) > MAX_FILES:
        raise TableFault(folder, 0, f"must not have more than {MAX_FILES} tables")
    size = 0
    for path in paths:
        if not _NAME.fullmatch(path.stem) or path.stem.startswith("sqlite_"):
            raise TableFault(path, 0, f"a table's file name must match {_NAME.pattern}.csv")
        try:
            size += path.stat().st_size
            if size > MAX_BYTES:
                raise TableFault(path, 0, f"the tables together must not have more than {MAX_BYTES} bytes")
            yield path, path.read_text("utf-8-sig")
        except UnicodeDecodeError:
            raise TableFault(path, 0, "is not UTF-8: save it in that encoding") from None
        except OSError as error:
            raise TableFault(path, 0, f"cannot be read: {error.strerror}") from None


def _load(connection: sqlite3.Connection, path: Path, text: str) -> Table:
    """Create and fill one table. Raises `TableFault`."""
    lines = list(_rows(path, text))
    names = _header(path, lines)
    rows = [row for _, row in lines[1:]]
    columns = [_column(name, [row[at] for row in rows]) for at, name in enumerate(names)]
    listed = ", ".join(f'"{column.name}" {column.kind}' for column in columns)
    connection.execute(f'CREATE TABLE "{path.stem}" ({listed})')
    converters = [_CONVERTERS[column.kind] for column in columns]
    values = ([to(cell) if cell else None for to, cell in zip(converters, row, strict=True)] for row in rows)
    connection.executemany(f'INSERT INTO "{path.stem}" VALUES ({", ".join("?" * len(columns))})', values)
    return Table(path.stem, tuple(columns), len(rows))


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows with their line. Raises `TableFault` for a row of another length, or a cell that is too long."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    width = 0
    try:
        for row in reader:
            row = [cell.strip() for cell in row]
            width = width or len(row)
            if not row:
                continue
            if len(row) != width:
                raise TableFault(path, reader.line_num, f"has {len(row)} cells, the header {width}")
            if any(len(cell) > MAX_CELL or "\0" in cell for cell in row):
                raise TableFault(
                    path, reader.line_num, f"has a cell of more than {MAX_CELL} characters, or a NUL"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise TableFault(path, reader.line_num, f"is not CSV: {error}") from None


def _header(path: Path, lines: Sequence[tuple[int, list[str]]]) -> list[str]:
    if not lines:
        raise TableFault(path, 1, "needs a header row with the names of its columns")
    line, names = lines[0]
    if len(names) > MAX_COLUMNS:
        raise TableFault(path, line, f"must not have more than {MAX_COLUMNS} columns")
    for name in names:
        if not _NAME.fullmatch(name):
            raise TableFault(path, line, f"the column {name[:80]!r} must match {_NAME.pattern}")
        if names.count(name) > 1:
            raise TableFault(path, line, f"the column {name!r} is there twice")
    return names


def _column(name: str, cells: Sequence[str]) -> Column:
    kind = _kind(cells)
    if kind != "TEXT":
        return Column(name, kind)
    found = tuple(dict.fromkeys(cell[:MAX_SAMPLE] for cell in cells if cell))
    return Column(name, kind, found if len(found) <= FEW_VALUES else found[:1])


def _kind(cells: Sequence[str]) -> str:
    """Infer a column's type: INTEGER or REAL if every cell that is not empty is a plain number, else TEXT."""
    filled = [cell for cell in cells if cell]
    if filled and all(map(_INTEGER.fullmatch, filled)):
        return "INTEGER"
    if filled and all(_INTEGER.fullmatch(cell) or _REAL.fullmatch(cell) for cell in filled):
        return "REAL"
    return "TEXT"


_CONVERTERS: dict[str, Callable[[str], Any]] = {"INTEGER": int, "REAL": float, "TEXT": str}
