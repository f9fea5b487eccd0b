"""The database: one engine, two kinds of transaction, and one way of saying that it cannot be reached."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

import orjson
import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import Executable
from sqlalchemy.sql.functions import GenericFunction

from service.errors import DatabaseUnavailable
from service.store.statement import Plan, Statement
from service.store.statement import Row as Row
from service.store.writers import Waiting, Writers

T = TypeVar("T")
BUSY = 4  # times the patience, for a turn to write to SQLite
AWAY = "The database cannot be reached at the moment."
_DOWN = (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError, sa.exc.ResourceClosedError)


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

    __slots__ = ("_cursor", "_engine", "_hooks", "_pooled", "_slow")

    def __init__(self, engine: sa.Engine, pooled: Any, cursor: Any) -> None:
        self._engine = engine
        self._pooled = pooled
        self._cursor = cursor  # one for all statements: each is read to its end before the next
        self._slow: sa.Connection | None = None
        self._hooks: list[Callable[[], object]] = []

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
    """What one thread wants written: by itself when its turn comes, or along by another whose turn it is."""

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


class Database:
    """One engine per process, made after fork. `pool_size` is the most threads that use it at once.

    SQLite has one writer: those who want to write wait for their turn, see `service.store.writers`. Whose turn it is
    writes along what the others of its process wait to write, in one transaction.
    """

    def __init__(self, url: str, *, pool_size: int = 10, patience: float = 5.0) -> None:
        self.sqlite = url.startswith("sqlite")
        self.patience = patience  # seconds that a request waits for a database that is restarting
        self._writers: Writers | None = None
        # Parameters are prompts and hashes: an error that is logged must not quote them.
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 2, "pool_timeout": patience}
        options["hide_parameters"] = True
        options["pool_use_lifo"] = True  # a few connections stay warm; those beside them hold little
        if self.sqlite:
            options["connect_args"] = {"timeout": patience, "check_same_thread": False}
        else:
            options["connect_args"] = {"connect_timeout": 3, "options": "-c statement_timeout=15000"}
        self.engine = sa.create_engine(url, json_serializer=_dumps, json_deserializer=orjson.loads, **options)
        self._driver: Any = self.engine.dialect.loaded_dbapi  # the module, for its exceptions
        if self.sqlite:
            sa.event.listen(self.engine, "connect", _prepare_sqlite)
            # A queue that moves is no outage: it is waited for longer than a database that is away.
            self._writers = Writers(Path(self.engine.url.database or ""), patience * BUSY)

    @contextmanager
    def begin(self) -> Iterator[Transaction]:
        """A transaction that writes. Commits at the end, rolls back on any exception.

        Raises `DatabaseUnavailable` when the database cannot be reached or stays locked.
        """
        # SQLite takes the lock at once: upgrading a read lock later can only fail.
        with self._turn(), self._transaction("BEGIN IMMEDIATE") as transaction:
            yield transaction
        transaction.committed()

    @contextmanager
    def read(self) -> Iterator[Transaction]:
        """A transaction that only reads: one snapshot."""
        with self._transaction("BEGIN") as transaction:
            yield transaction

    def transact(
        self, work: Callable[[Transaction], T], *, patience: float | None = None, ahead: bool = False
    ) -> T:
        """Run `work` in a write transaction, again while the database is away, for `patience` seconds at most.

        A commit whose answer was lost may have happened: `work` must come out the same when it runs twice. With SQLite
        another thread may run it, with this one's context variables. `ahead`: it may not wait behind others of this
        process.
        """
        return self._persist(partial(self._write, work, ahead), patience)

    def query(self, work: Callable[[Transaction], T], *, patience: float | None = None) -> T:
        """Run `work` in a read transaction, again while the database is away."""
        return self._persist(partial(self._read, work), patience)

    def _persist(self, attempt: Callable[[], T], patience: float | None) -> T:
        end = time.monotonic() + (self.patience if patience is None else patience)
        pause = 0.02
        while True:
            try:
                return attempt()
            except DatabaseUnavailable:
                if time.monotonic() + pause > end:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 0.5)

    def _read(self, work: Callable[[Transaction], T]) -> T:
        with self.read() as transaction:
            return work(transaction)

    def _write(self, work: Callable[[Transaction], T], ahead: bool) -> T:
        if self._writers is None:
            with self.begin() as transaction:
                return work(transaction)
        mine = Write(work)
        if self._writers.take(mine, ahead=ahead):
            try:
                self._write_along(self._writers, mine)
            finally:
                self._writers.give()
        return mine.outcome()

    def _write_along(self, writers: Writers, mine: Write[Any]) -> None:
        """`mine` and what others wait to write, in one transaction; what fails is undone by itself.

        Nobody is told before the commit: what they were told might not come to pass.
        """
        others: list[Write[Any]] = []
        try:
            with self._transaction("BEGIN IMMEDIATE") as transaction:
                mine.run(transaction)
                for other in writers.along():
                    assert isinstance(other, Write)
                    others.append(other)
                    self._run_within(transaction, other)
        except BaseException:
            for other in others:
                other.fail(DatabaseUnavailable(AWAY))
            raise
        finally:
            for other in others:
                other.done = True
                other.go_on()

    def _run_within(self, transaction: Transaction, other: Write[Any]) -> None:
        transaction.command("SAVEPOINT part")
        try:
            with self._outages():
                other.run(transaction.another())
        except Exception as error:
            other.fail(error)
            transaction.command("ROLLBACK TO part")  # fails where SQLite has undone the whole transaction
        transaction.command("RELEASE part")

    def ping(self) -> None:
        """Raises `DatabaseUnavailable` when a trivial statement does not come back."""
        with self.read() as transaction:
            transaction.row(sa.text("SELECT 1"))

    def close(self) -> None:
        self.engine.dispose()
        if self._writers is not None:
            self._writers.close()

    def _turn(self) -> AbstractContextManager[None]:
        return nullcontext() if self._writers is None else self._writers.turn()

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[Transaction]:
        """BEGIN and COMMIT are said to the driver: SQLAlchemy's own connection takes ten times as long for them."""
        with self._outages():
            pooled = self.engine.raw_connection()
            try:
                cursor = pooled.cursor()
                if self.sqlite:  # psycopg begins by itself
                    cursor.execute(begin)
                yield Transaction(self.engine, pooled, cursor)
                pooled.commit()
            except self._driver.Error as error:
                if self.engine.dialect.is_disconnect(error, pooled.driver_connection, None):
                    pooled.invalidate(error)
                    self.engine.dispose()  # the others go the same way
                    raise DatabaseUnavailable("The connection to the database was lost.") from error
                raise
            finally:
                pooled.close()  # rolls back what is not committed

    @contextmanager
    def _outages(self) -> Iterator[None]:
        """One way of saying that the database cannot be reached."""
        try:
            yield
        except (*_DOWN, self._driver.OperationalError, self._driver.InterfaceError) as error:
            raise DatabaseUnavailable(AWAY) from error
        except sa.exc.DBAPIError as error:
            if not error.connection_invalidated:
                raise
            raise DatabaseUnavailable("The connection to the database was lost.") from error


def _dumps(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see `Database._transaction`
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")
