"""Transactions over one driver connection, and SQL expressions for both databases."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Executable
from sqlalchemy.sql.functions import GenericFunction

from service.ids import new_id
from service.store.actor import Actor, current_actor
from service.store.pipeline import Queued, expecting_count, expecting_rows, send
from service.store.sealer import Sealer, sealed_columns
from service.store.statement import Plan, Row, Statement


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

    Where it is `pipelined` (PostgreSQL), a `Statement` whose result is expected, or not needed, waits for one whose
    result is needed, or for the commit: all go in one round trip. So the usual transaction is a single trip, and its
    locks wait for no client. Code reads the same in either case: where a result differs, `Unexpected` is raised, and
    `Database` runs the transaction again, statement by statement.
    """

    __slots__ = (
        "_begin",
        "_engine",
        "_hooks",
        "_ids_used",
        "_pooled",
        "_queue",
        "_sealer",
        "_sqlalchemy",
        "assumes",
        "audited",
        "credentials_held",
        "ids",
        "locked_counters",
        "pipelined",
    )

    def __init__(
        self,
        engine: sa.Engine,
        pooled: Any,
        sealer: Sealer,
        begin: Sequence[str] = (),
        *,
        pipelined: bool = False,
    ) -> None:
        self.pipelined = pipelined
        self.assumes = False  # whether an expected result has yet to be compared
        self.audited = False  # whether it adds rows to the audit: see `Database.audited`
        self.credentials_held = False  # see `service.store.credentials.hold`
        self.ids: list[str] = []  # of `id`: shared with the transaction that runs the same work again
        self.locked_counters: set[str] = set()  # ids: see `service.store.budgets.may_lock`
        self._engine = engine
        self._ids_used = 0
        self._pooled = pooled
        self._sealer = sealer
        self._begin = tuple(begin)
        self._queue = [Queued(sql) for sql in begin]
        self._sqlalchemy: sa.Connection | None = None
        self._hooks: list[Callable[[], object]] = []

    @property
    def one_writer(self) -> bool:
        """Return whether the database has one writer (SQLite), so that no row has to be locked."""
        return self._engine.dialect.name == "sqlite"

    @property
    def actor(self) -> Actor:
        """Actor of this thread."""
        return current_actor()

    def id(self, prefix: str) -> str:
        """Create an id; the same one again where the transaction is run again, as its commit may have happened."""
        if self._ids_used == len(self.ids):
            self.ids.append(new_id(prefix))
        self._ids_used += 1
        return self.ids[self._ids_used - 1]

    def sealed(self, table: sa.Table, values: Mapping[str, Any], *owners: str) -> dict[str, Any]:
        """Return values of a table, those of sealed columns as they are stored: see `Sealer.values`."""
        return self._sealer.values(table, values, owners)

    def digest(self, user_id: str, text: str) -> str:
        """Return what a text of a user is found by: see `Sealer.digest`."""
        return self._sealer.digest(user_id, text)

    def execute(
        self,
        statement: Executable | Statement,
        values: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        expect: int | None = None,
    ) -> int:
        """Run a statement; return its row count. `expect`: the usual count, see `Transaction`.

        `values`: of one row; of several for a clause that is no `Statement`.
        """
        if not isinstance(statement, Statement):
            self._flush()
            return self._connection.execute(statement, values).rowcount
        plan, given = self._planned(statement, values)
        if expect is None or not self.pipelined:
            return int(self._run(Queued(plan.sql, given)).rowcount)
        self._assume(expecting_count(plan.sql, expect), given)
        return expect

    def send(self, statement: Statement, *values: Mapping[str, Any]) -> None:
        """Run a statement whose result is not needed, once for each of `values`."""
        for each in values:
            plan, given = self._planned(statement, each)
            if self.pipelined:
                self._queue.append(Queued(plan.sql, given))
            else:
                self._run(Queued(plan.sql, given))

    def rows(
        self,
        statement: Executable | Statement,
        values: Mapping[str, Any] | None = None,
        *,
        expect: Sequence[Row] | None = None,
    ) -> list[Row]:
        """Run a query; return its rows. `expect`: the usual rows, see `Transaction`."""
        if not isinstance(statement, Statement):
            self._flush()
            read: list[dict[str, Any]] = list(
                map(dict, self._connection.execute(statement, values).mappings())
            )
            self._sealer.open(read, sealed_columns(getattr(statement, "exported_columns", ())))
            return list(read)
        plan, given = self._planned(statement, values)
        if expect is None or not self.pipelined:
            found = list(map(plan.row, self._run(Queued(plan.sql, given)).fetchall()))
            if plan.sealed:
                self._sealer.open(found, plan.sealed)
            return list(found)
        self._assume(*expecting_rows(plan.sql, given, expect))
        return list(expect)

    def row(
        self,
        statement: Executable | Statement,
        values: Mapping[str, Any] | None = None,
        *,
        expect: Row | None = None,
    ) -> Row | None:
        """Run a query; return its first row. `expect`: the usual row, the only one."""
        found = self.rows(statement, values, expect=None if expect is None else [expect])
        return found[0] if found else None

    def rows_after_commit(
        self, statement: Statement, values: Mapping[str, Any], hook: Callable[[list[Row]], object]
    ) -> None:
        """Run a query; `hook` receives its rows once the commit has succeeded. Of a pipelined transaction only,
        and without sealed columns.
        """
        plan, given = self._planned(statement, values)

        def read(cursor: Any) -> None:
            rows: list[Row] = list(map(plan.row, cursor.fetchall()))
            self.after_commit(lambda: hook(rows))

        self._queue.append(Queued(plan.sql, given, read))

    def use_one_snapshot(self) -> None:
        """Use one snapshot for the whole transaction, as SQLite always does; must come before the first statement."""
        if self.one_writer:
            return
        if self._begin:
            self._queue.append(Queued("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
        else:
            self._begin = ("BEGIN ISOLATION LEVEL REPEATABLE READ",)
            self._queue.append(Queued(*self._begin))

    def commit(self) -> None:
        """Commit. Raises `Unexpected` instead where an expected result differs."""
        if self.one_writer:
            self._pooled.commit()
            return
        if self._begin:
            self._queue.append(Queued("COMMIT"))
        self._flush()

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

    def _planned(self, statement: Statement, values: Any) -> tuple[Plan, Any]:
        plan = statement.plan(self._engine.dialect, values or {})
        return plan, plan.values(values or {})

    def _assume(self, sql: str, values: Any) -> None:
        self.assumes = True
        self._queue.append(Queued(sql, values))

    def _run(self, statement: Queued) -> Any:
        """Run a statement, after all that wait, in the same round trip; return its result. Raises `Unexpected`."""
        if self.one_writer:
            return self._pooled.cursor().execute(statement.sql, statement.values or ())
        self._queue.append(statement)
        return self._flush()

    def _flush(self) -> Any:
        """Send what waits, in one round trip; return the last statement's answer. Raises `Unexpected`."""
        if not self._queue:
            return None
        queue, self._queue, self.assumes = self._queue, [], False
        return send(self._pooled.driver_connection, queue)


WriteInTransaction = Callable[[Transaction], None]  # a part of a transaction, which joins others
