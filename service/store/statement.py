"""Compiled statements for hot paths: SQLAlchemy compiles them once, then the SQL goes straight to the driver.

SQLAlchemy's work around each execution (cache keys, contexts, events, result objects) takes twenty times as long as
SQLite takes for the statement itself, see docs/performance.md. Values and rows still pass its type processors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import Executable

from service.store.sealer import sealed_columns

Processor = Callable[[Any], Any]
Row = Mapping[str, Any]


class Statement:
    """Statement compiled once for each database. Lists in it must have a fixed length: see `binds`."""

    __slots__ = ("_plans", "clause")

    def __init__(self, clause: Executable) -> None:
        self.clause = clause
        self._plans: dict[tuple[str, ...], Plan] = {}

    def plan(self, dialect: sa.Dialect, given: Row) -> Plan:
        """Return the cached plan for this database and these value names, which must always come in the same order."""
        names = (dialect.name, *given)
        plan = self._plans.get(names)
        if plan is None:
            plan = self._plans[names] = Plan(self.clause, dialect, given)
        return plan


class Plan:
    """SQL text for one driver, with the processors of its values and columns."""

    __slots__ = ("_columns", "_names", "_readers", "_slots", "_tuple", "sealed", "sql")

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
        self.sealed = sealed_columns(columns)
        readers = [(column.key, _reader(column.type, dialect)) for column in columns]
        self._readers = [(key, reader) for key, reader in readers if reader is not None]

    def values(self, given: Row) -> Sequence[Any] | Mapping[str, Any]:
        """Convert values to the driver's arguments: a list in their order, or a dict where the driver names them."""
        values = [
            constant if key is None else given[key] if process is None else process(given[key])
            for _, key, process, constant in self._slots
        ]
        return values if self._tuple else dict(zip(self._names, values, strict=True))

    def row(self, found: Sequence[Any]) -> dict[str, Any]:
        """Convert the driver's row to a dict by column name; what is sealed stays so."""
        row = dict(zip(self._columns, found, strict=True))
        for key, reader in self._readers:
            row[key] = reader(row[key])
        return row


# The driver's name of a parameter; the key of its value, or None for a constant; its processor; the constant.
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
    """Build bind parameters for `IN`: `name0` to `name{count-1}`; a list of any length would be compiled each time."""
    return [sa.bindparam(f"{name}{number}", type_=sa.String()) for number in range(count)]


def listed(name: str, values: Sequence[str]) -> dict[str, str]:
    """Name values as `binds` names its parameters."""
    return {f"{name}{number}": value for number, value in enumerate(values)}
