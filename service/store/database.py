"""The database: one engine, two kinds of transaction, and one way of saying that it cannot be reached."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa

from service.errors import DatabaseUnavailable
from service.store import postgres
from service.store.connections import AWAY, Connections
from service.store.outages import Outages, ReadOnly, Unfit, is_lost, is_outage
from service.store.postgres import connect_args as connect_args
from service.store.sqlite_writers import Writers
from service.store.statement import Row as Row
from service.store.transaction import InsertOnce as InsertOnce
from service.store.transaction import Transaction as Transaction
from service.store.transaction import Write, execute_unprepared
from service.store.transaction import clock_ms as clock_ms
from service.store.transaction_retry import again, collision_of

T = TypeVar("T")
BUSY = 4  # times the patience, for a queue that moves: for a connection, or a turn to write to SQLite
CHECK_SECONDS = 30.0  # between two looks whether the database still fits
MADE = "made"  # in the `info` of a pooled connection: when it was made, time.monotonic()
_READ_ONLY = sa.text("SELECT current_setting('transaction_read_only') AS read_only")
_READ_ONLY_FILE = sa.text("SELECT 'off' AS read_only")  # only a write shows it
_DOWN = (
    sa.exc.OperationalError,
    sa.exc.InterfaceError,
    sa.exc.TimeoutError,
    sa.exc.ResourceClosedError,
    Unfit,
)


class Database:
    """One engine per process, made after fork. `pool_size` is the most connections it holds.

    `check` looks at a database before it is used, and now and then again: it may be migrated meanwhile. `retried` hears
    why a transaction is run again: `deadlock` or `serialization_failure`. SQLite has one writer: the thread whose turn
    it is (`service.store.sqlite_writers`) runs the queued writes of its process too, in one transaction.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        patience: float = 5.0,
        check: Callable[[sa.Connection], None] | None = None,
        retried: Callable[[str], object] = str,
    ) -> None:
        self._retried = retried
        self._check = check  # before a transaction, every `CHECK_SECONDS`; raises `Unfit`
        self._check_at = 0.0  # time.monotonic()
        self._outages = Outages()
        self.sqlite = url.startswith("sqlite")
        self.patience = patience  # seconds that a request waits for a database that is restarting
        self._writers: Writers | None = None
        # Parameters are prompts and hashes: an error that is logged must not quote them. A few connections stay warm.
        options: dict[str, Any] = {"pool_size": pool_size, "max_overflow": 0, "hide_parameters": True}
        options["pool_use_lifo"] = True
        if self.sqlite:
            options["connect_args"] = {"timeout": patience, "check_same_thread": False}
        else:
            options["connect_args"] = connect_args(url)
        self.engine = sa.create_engine(url, json_serializer=_dumps, json_deserializer=orjson.loads, **options)
        if not self.sqlite:
            sa.event.listen(self.engine, "do_connect", postgres.connect)
            sa.event.listen(self.engine, "do_execute", execute_unprepared)
        self._driver: Any = self.engine.dialect.loaded_dbapi  # the module, for its exceptions
        self._connections = Connections(pool_size, patience * BUSY, self._reconnect, self._idle)
        self._pool_since = 0.0  # time.monotonic(); connections made before it are not used again
        sa.event.listen(self.engine, "connect", _note_when_made)
        sa.event.listen(self.engine, "connect", _prepare_sqlite if self.sqlite else postgres.prepare)
        if self.sqlite:
            self._writers = Writers(Path(self.engine.url.database or ""), patience * BUSY)

    @contextmanager
    def begin(self, *, ahead: bool = False) -> Iterator[Transaction]:
        """A transaction that writes. Commits at the end, rolls back on any exception. `ahead`: see `transact`.

        Raises `DatabaseUnavailable` when the database cannot be reached or stays locked.
        """
        with self._turn(), self._transaction(writes=True, ahead=ahead) as transaction:
            yield transaction
        transaction.committed()

    @contextmanager
    def read(self, *, ahead: bool = False) -> Iterator[Transaction]:
        """A transaction that only reads: one snapshot."""
        with self._transaction(ahead=ahead) as transaction:
            yield transaction

    def transact(
        self, work: Callable[[Transaction], T], *, patience: float | None = None, ahead: bool = False
    ) -> T:
        """Run `work` in a write transaction, again while the database is away, for `patience` seconds at most.

        A commit whose answer was lost may have happened: `work` must come out the same when it runs twice. With SQLite
        another thread may run it, with this one's context variables. `ahead`: it may not wait behind others of this
        process. One that collided with another is run again too: see `service.store.transaction_retry`.
        """
        return self._persist(partial(again, partial(self._write, work, ahead), self._retried), patience)

    def query(
        self, work: Callable[[Transaction], T], *, patience: float | None = None, ahead: bool = False
    ) -> T:
        """Run `work` in a read transaction, again while the database is away."""
        return self._persist(partial(again, partial(self._read, work, ahead), self._retried), patience)

    def _persist(self, attempt: Callable[[], T], patience: float | None) -> T:
        end = time.monotonic() + (self.patience if patience is None else patience)
        pause = 0.02
        while True:
            try:
                return attempt()
            except DatabaseUnavailable:
                if time.monotonic() + pause > end or not self._connections.wait_until_back(end):
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 0.5)

    def _read(self, work: Callable[[Transaction], T], ahead: bool) -> T:
        with self.read(ahead=ahead) as transaction:
            return work(transaction)

    def _write(self, work: Callable[[Transaction], T], ahead: bool) -> T:
        if self._writers is None:
            with self.begin(ahead=ahead) as transaction:
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
            with self._transaction(writes=True) as transaction:
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
            with self._away_told():
                other.run(transaction.another())
        except Exception as error:
            other.fail(error)
            transaction.command("ROLLBACK TO part")  # fails where SQLite has undone the whole transaction
        transaction.command("RELEASE part")

    def ping(self) -> None:
        """Raises `DatabaseUnavailable` when a trivial statement does not come back, or where writes are refused."""
        with self.read() as transaction:
            found = transaction.row(_READ_ONLY_FILE if self.sqlite else _READ_ONLY)
            if found is None or found["read_only"] != "off":
                raise ReadOnly
        if self._outages.refuses_writes:
            raise DatabaseUnavailable(AWAY)

    def close(self) -> None:
        self._connections.close()
        self.engine.dispose()
        if self._writers is not None:
            self._writers.close()

    def _turn(self) -> AbstractContextManager[None]:
        return nullcontext() if self._writers is None else self._writers.turn()

    @contextmanager
    def _transaction(self, *, writes: bool = False, ahead: bool = False) -> Iterator[Transaction]:
        """BEGIN and COMMIT are said to the driver: SQLAlchemy's own connection takes ten times as long for them."""
        with self._away_told(), self._connections.slot(ahead=ahead):
            pooled = self._pooled()
            made = pooled.info[MADE]
            try:
                self._look_whether_fit(pooled)
                cursor = pooled.cursor()
                if begin := self._begin(pooled, writes):
                    cursor.execute(begin)
                yield Transaction(self.engine, pooled, cursor)
                pooled.commit()
            except (self._driver.Error, sa.exc.DBAPIError, ReadOnly) as error:
                if not self._is_lost(error, pooled):
                    raise
                self._let_pool_go(made)
                self._outages.met(error)
                raise DatabaseUnavailable(AWAY) from error
            finally:
                if pooled.is_valid and made <= self._pool_since:
                    pooled.invalidate()
                pooled.close()  # rolls back what is not committed
        if self._outages.cause:
            self._outages.over(wrote=writes)

    def _pooled(self) -> Any:
        try:
            return self.engine.raw_connection()
        except (self._driver.Error, sa.exc.DBAPIError):
            self._lost()
            raise

    def _lost(self) -> None:
        if not self.sqlite:  # a file is opened again with the next transaction
            self._connections.lost()

    def _reconnect(self) -> None:
        """Connect beside the pool. Raises the driver's error, which the log is told."""
        try:
            postgres.reach(self.engine)
        except self._driver.Error as error:
            self._outages.met(error)
            raise

    def _idle(self) -> int:
        return int(self.engine.pool.checkedin())  # type: ignore[attr-defined]

    def _begin(self, pooled: Any, writes: bool) -> str | None:
        """Return what a transaction begins with; None: psycopg says it by itself."""
        if self.sqlite:  # takes the lock at once: upgrading a read lock later can only fail
            return "BEGIN IMMEDIATE" if writes else "BEGIN"
        begin: str | None = pooled.info.get(postgres.BEGIN)
        return begin

    def _look_whether_fit(self, pooled: Any) -> None:
        """Raise `Unfit` for a database not to be used; in a transaction of its own, see `ledger.one_snapshot`."""
        if self._check is not None and time.monotonic() >= self._check_at:
            self._check(sa.Connection(self.engine, connection=pooled))
            self._check_at = time.monotonic() + CHECK_SECONDS
            pooled.rollback()

    def _is_lost(self, error: Exception, pooled: Any) -> bool:
        if is_lost(error) or getattr(error, "connection_invalidated", False):
            return True
        driver_error: Any = getattr(error, "orig", error)
        return self.engine.dialect.is_disconnect(driver_error, pooled.driver_connection, None)

    def _let_pool_go(self, made: float) -> None:
        """Close all connections, those in use when they come back: the server that is to be used may be another now.

        Once, however many threads meet it: `made` is when the connection of one of them was made.
        """
        if made > self._pool_since:
            self._pool_since = time.monotonic()
            self.engine.dispose()
            self._lost()

    @contextmanager
    def _away_told(self) -> Iterator[None]:
        """One way of saying that the database cannot be reached."""
        try:
            yield
        except (*_DOWN, self._driver.Error, sa.exc.DBAPIError) as error:
            down = (*_DOWN, self._driver.OperationalError, self._driver.InterfaceError)
            if not (isinstance(error, down) or is_outage(error)):
                raise
            if (
                collision_of(error) is None
            ):  # else the database is there: see `service.store.transaction_retry`
                self._outages.met(error)
            raise DatabaseUnavailable(AWAY) from error


def _dumps(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


def _note_when_made(_connection: Any, record: Any) -> None:
    record.info[MADE] = time.monotonic()


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, see `Database._begin`
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=5000"):
        connection.execute(f"PRAGMA {pragma}")
