"""Transactions over one driver connection, queued writes for group commit, and SQL expressions for both databases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from typing import Any, Generic, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Executable
from sqlalchemy.sql.functions import GenericFunction

from service.store.actor import Actor, current_actor
from service.store.sqlite_writers import Waiter
from service.store.statement import Plan, Row, Statement

T = TypeVar("T")
# Execution options of a query whose best plan depends on its values, such as a list: it is not prepared. PostgreSQL's
# generic plan of a prepared statement suits common values, and would read a million rows for a rare one.
PLANNED_ANEW = {"planned_anew": True}


class clock_ms(GenericFunction[int]):
    """Clock of the database in milliseconds: leases must not depend on a worker's clock."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(clock_ms, "sqlite")
def _sqlite_clock(element: Any, compiler: Any, **kw: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@compiles(clock_ms, "postgresql")
def _postgres_clock(element: Any, compiler: Any, **kw: Any) -> str:
    return "CAST(extract(epoch from clock_timestamp()) * 1000 AS BIGINT)"


def execute_unprepared(cursor: Any, statement: str, parameters: Any, context: Any) -> bool | None:
    """Handle psycopg's `do_execute` event: execute a `PLANNED_ANEW` query unprepared; None: leave it to SQLAlchemy."""
    if context is None or not context.execution_options.get("planned_anew"):
        return None
    cursor.execute(statement, parameters, prepare=False)
    return True


class filter_only(GenericFunction[bool]):
    """Condition to filter by without its index, because another condition of the query is more selective.

    A hint for SQLite's planner, as unary `+`: without statistics it takes all indexes for equally good.
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
    """Insert with ON CONFLICT DO NOTHING, so that a transaction may be run twice; its row count is 1 or 0."""

    inherit_cache = True


@compiles(InsertOnce)
def _insert_once(element: Any, compiler: Any, **kw: Any) -> str:
    return f"{compiler.visit_insert(element, **kw)} ON CONFLICT DO NOTHING"


class Transaction:
    """Open transaction. Hooks given to `after_commit` run only once the commit has succeeded.

    A `Statement` goes straight to the driver; any other clause through SQLAlchemy, over the same connection.
    """

    __slots__ = ("_cursor", "_engine", "_hooks", "_pooled", "_sqlalchemy", "locked_counters")

    def __init__(self, engine: sa.Engine, pooled: Any, cursor: Any) -> None:
        self._engine = engine
        self._pooled = pooled
        self._cursor = cursor  # one for all statements: each is read to its end before the next
        self._sqlalchemy: sa.Connection | None = None
        self._hooks: list[Callable[[], object]] = []
        self.locked_counters: set[str] = set()  # ids: see `service.store.budgets.in_order`

    @property
    def one_writer(self) -> bool:
        """True for SQLite: no other writer can run meanwhile, so no row has to be locked."""
        return self._engine.dialect.name == "sqlite"

    @property
    def actor(self) -> Actor:
        """Actor of the thread whose write this is, also where another thread runs it (group commit)."""
        return current_actor()

    def execute(
        self, statement: Executable | Statement, values: Mapping[str, Any] | Sequence[Any] | None = None
    ) -> int:
        """Run a statement; return its row count."""
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
        """Run a transaction command such as SAVEPOINT."""
        self._cursor.execute(sql)

    def with_own_hooks(self) -> Transaction:
        """Share the connection with another thread's write (group commit); after-commit hooks stay apart."""
        return Transaction(self._engine, self._pooled, self._cursor)

    def after_commit(self, hook: Callable[[], object]) -> None:
        self._hooks.append(hook)

    def committed(self) -> None:
        for hook in self._hooks:
            hook()

    @property
    def _connection(self) -> sa.Connection:
        """SQLAlchemy connection for rare statements; its own transaction handling is not used, see `Database`."""
        if self._sqlalchemy is None:
            self._sqlalchemy = sa.Connection(self._engine, connection=self._pooled)
        return self._sqlalchemy

    def _run(self, statement: Statement, values: Any) -> tuple[Plan, Any]:
        cursor = self._cursor
        if isinstance(values, list):
            plan = statement.plan(self._engine.dialect, values[0])
            cursor.executemany(plan.sql, list(map(plan.values, values)))
        else:
            plan = statement.plan(self._engine.dialect, values)
            cursor.execute(plan.sql, plan.values(values))
        return plan, cursor


WriteInTransaction = Callable[[Transaction], None]  # a part of a transaction, which joins others


class Write(Waiter, Generic[T]):
    """Queued write of one thread, run by itself or by another thread's group commit."""

    __slots__ = ("_context", "_error", "_result", "_tx", "_work")
    groupable = True

    def __init__(self, work: Callable[[Transaction], T]) -> None:
        super().__init__()
        self._work = work
        self._context = copy_context()  # of the queuing thread: its actor, its log fields
        self._error: BaseException | None = None

    def run(self, tx: Transaction) -> None:
        self._tx = tx
        self._result = self._context.run(self._work, tx)

    def fail(self, error: BaseException) -> None:
        self._error = error

    def result(self) -> T:
        """Run after-commit hooks, then return or raise the result; called by the queuing thread."""
        if self._error is not None:
            raise self._error
        self._tx.committed()
        return self._result
