"""Transactions over one driver connection, writes that others may run along, and the expressions all of them use."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Executable
from sqlalchemy.sql.functions import GenericFunction

from service.store.sqlite_writers import Waiting
from service.store.statement import Plan, Row, Statement

T = TypeVar("T")
# Execution options of a query whose best plan depends on its values, as that of a list does. A prepared statement has
# one plan for all of them: PostgreSQL makes it for what is common, and then reads a million rows for what is rare.
PLANNED_ANEW = {"planned_anew": True}


class clock_ms(GenericFunction[int]):
    """The database's own clock in milliseconds, so that leases do not depend on any worker's clock."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(clock_ms, "sqlite")
def _sqlite_clock(element: Any, compiler: Any, **kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiles(clock_ms, "postgresql")
def _postgres_clock(element: Any, compiler: Any, **kw: Any) -> str:
    return "CAST(extract(epoch from clock_timestamp()) * 1000 AS BIGINT)"


def execute_unprepared(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
    """Listen to `do_execute` of an engine of psycopg, so that `PLANNED_ANEW` is heeded."""
    if context is None or not context.execution_options.get("planned_anew"):
        return None
    cursor.execute(statement, parameters, prepare=False)
    return True


class filter_only(GenericFunction[bool]):
    """A condition that no index is to be chosen for, because another condition of the query leaves few rows.

    SQLite does not know which one does: without statistics it takes all indexes for equally good. PostgreSQL knows.
    """

    type = sa.Boolean()
    inherit_cache = True


@compiles(filter_only)
def _filter(element: Any, compiler: Any, **kw: Any) -> str:
    return str(compiler.process(element.clause_expr, **kw))


@compiles(filter_only, "sqlite")
def _sqlite_filter(element: Any, compiler: Any, **kw: Any) -> str:
    return f"+{compiler.process(element.clause_expr, **kw)}"


class InsertOnce(sa.Insert):
    """An insert that leaves a row of the same key alone, so that a transaction may be run twice."""

    inherit_cache = True
    # Else it is -1 with psycopg: nobody could tell whether the row was there before.
    _execution_options = sa.Insert._execution_options.union({"preserve_rowcount": True})


@compiles(InsertOnce)
def _insert_once(element: Any, compiler: Any, **kw: Any) -> str:
    return f"{compiler.visit_insert(element, **kw)} ON CONFLICT DO NOTHING"


class Transaction:
    """An open transaction. What is given to `after_commit` runs only once the commit has succeeded.

    A `Statement` goes to the driver as it is; anything else by way of SQLAlchemy, over the same connection.
    """

    __slots__ = ("_cursor", "_engine", "_hooks", "_pooled", "_slow", "counted")

    def __init__(self, engine: sa.Engine, pooled: Any, cursor: Any) -> None:
        self._engine = engine
        self._pooled = pooled
        self._cursor = cursor  # one for all statements: each is read to its end before the next
        self._slow: sa.Connection | None = None
        self._hooks: list[Callable[[], object]] = []
        self.counted: set[str] = set()  # ids of the counters it has locked: see `service.store.budgets`

    @property
    def one_writer(self) -> bool:
        """Whether nobody else can write meanwhile: no row has to be locked."""
        return self._engine.dialect.name == "sqlite"

    def execute(
        self, statement: Executable | Statement, values: Mapping[str, Any] | Sequence[Any] | None = None
    ) -> int:
        """Run a statement; the number of rows it touched."""
        if isinstance(statement, Statement):
            return int(self._run(statement, values or {})[1].rowcount)
        return self._connection.execute(statement, values).rowcount

    def rows(self, statement: Executable | Statement, values: Mapping[str, Any] | None = None) -> list[Row]:
        if isinstance(statement, Statement):
            plan, cursor = self._run(statement, values or {})
            return list(map(plan.row, cursor.fetchall()))
        return list(map(dict, self._connection.execute(statement, values).mappings()))

    def row(self, statement: Executable | Statement, values: Mapping[str, Any] | None = None) -> Row | None:
        found = self.rows(statement, values)
        return found[0] if found else None

    def command(self, sql: str) -> None:
        """Something about the transaction itself."""
        self._cursor.execute(sql)

    def another(self) -> Transaction:
        """The same one to the database, for another thread's work: what waits for the commit is apart."""
        return Transaction(self._engine, self._pooled, self._cursor)

    def after_commit(self, hook: Callable[[], object]) -> None:
        self._hooks.append(hook)

    def committed(self) -> None:
        for hook in self._hooks:
            hook()

    @property
    def _connection(self) -> sa.Connection:
        """For what is not worth a `Statement`. Its own idea of a transaction is not used: see `Database`."""
        if self._slow is None:
            self._slow = sa.Connection(self._engine, connection=self._pooled)
        return self._slow

    def _run(self, statement: Statement, values: Any) -> tuple[Plan, Any]:
        cursor = self._cursor
        if isinstance(values, list):
            plan = statement.plan(self._engine.dialect, values[0])
            cursor.executemany(plan.sql, list(map(plan.values, values)))
        else:
            plan = statement.plan(self._engine.dialect, values)
            cursor.execute(plan.sql, plan.values(values))
        return plan, cursor


class Write(Waiting, Generic[T]):
    """Queued write of one thread: run when its turn comes, or by another thread whose turn it is."""

    __slots__ = ("_context", "_error", "_result", "_tx", "_work")
    along = True

    def __init__(self, work: Callable[[Transaction], T]) -> None:
        super().__init__()
        self._work = work
        self._context = copy_context()  # of the thread whose work it is
        self._error: BaseException | None = None

    def run(self, tx: Transaction) -> None:
        self._tx = tx
        self._result = self._context.run(self._work, tx)

    def fail(self, error: BaseException) -> None:
        self._error = error

    def outcome(self) -> T:
        """In the thread whose work it is: what it came to, after what was to be done after the commit."""
        if self._error is not None:
            raise self._error
        self._tx.committed()
        return self._result
