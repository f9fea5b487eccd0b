"""Statements that every run executes: SQLAlchemy writes them once, then the driver is given the text.

What SQLAlchemy does around each execution (cache keys, contexts, events, result objects) takes twenty times as long
as SQLite takes for the statement itself, see docs/performance.md. Types are still SQLAlchemy's: what goes in and
comes out passes through the same processors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import Executable

Processor = Callable[[Any], Any]
Row = Mapping[str, Any]


class Statement:
    """One statement. Lists in it must have a fixed length: see `binds`."""

    __slots__ = ("_plans", "clause")

    def __init__(self, clause: Executable) -> None:
        self.clause = clause
        self._plans: dict[tuple[str, ...], Plan] = {}

    def plan(self, dialect: sa.Dialect, given: Row) -> Plan:
        """How to run it on this database with values of these names, which must always come in the same order."""
        names = (dialect.name, *given)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plans[names] = Plan(self.clause, dialect, given)
        return plan


class Plan:
    """A statement's text for one driver, and what its values and its columns pass through."""

    __slots__ = ("_columns", "_names", "_readers", "_slots", "_tuple", "sql")

    def __init__(self, clause: Executable, dialect: sa.Dialect, given: Row) -> None:
        compiled: Any = clause.compile(dialect=dialect, column_keys=list(given))  # type: ignore[attr-defined]
        self.sql: str = compiled.string
        self._tuple: bool = compiled.positional
        defaults = {column.key: column.default.arg for column in getattr(compiled, "insert_prefetch", ())}
        self._slots = [
            _slot(name, compiled.binds[name], dialect, given, defaults)
            for name in (compiled.positiontup if self._tuple else compiled.binds)
        ]
        self._names = [slot[0] for slot in self._slots]
        columns = list(getattr(clause, "exported_columns", ()))
        self._columns = [column.key for column in columns]
        readers = [(column.key, _reader(column.type, dialect)) for column in columns]
        self._readers = [(key, reader) for key, reader in readers if reader is not None]

    def values(self, given: Row) -> Sequence[Any] | Mapping[str, Any]:
        """The driver's arguments."""
        values = [
            constant if key is None else given[key] if process is None else process(given[key])
            for _, key, process, constant in self._slots
        ]
        return values if self._tuple else dict(zip(self._names, values, strict=True))

    def row(self, found: Sequence[Any]) -> dict[str, Any]:
        """A row as the driver gave it, by the names of its columns."""
        row = dict(zip(self._columns, found, strict=True))
        for key, reader in self._readers:
            row[key] = reader(row[key])
        return row


# The driver's name of a value; ours, or None where it is the same each time; what it passes through; that value.
_Slot = tuple[str, str | None, Processor | None, Any]


def _slot(name: str, bind: Any, dialect: sa.Dialect, given: Row, defaults: Row) -> _Slot:
    process = bind.type.dialect_impl(dialect).bind_processor(dialect)
    if bind.key in given:
        return name, bind.key, process, None
    constant = defaults.get(bind.key, bind.effective_value)
    return name, None, None, process(constant) if process else constant


def _reader(kind: Any, dialect: sa.Dialect) -> Processor | None:
    processor: Processor | None = kind.dialect_impl(dialect).result_processor(dialect, None)
    return processor


def binds(name: str, count: int) -> list[sa.BindParameter[Any]]:
    """`count` values for `IN`, named `name0`, `name1`, …: a list of unknown length would be written anew each time."""
    return [sa.bindparam(f"{name}{number}", type_=sa.String()) for number in range(count)]


def listed(name: str, values: Sequence[str]) -> dict[str, str]:
    """The values of `binds`."""
    return {f"{name}{number}": value for number, value in enumerate(values)}
