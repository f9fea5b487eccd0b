"""Database access: read and write transactions, retried while it is away or they collide.

Every outage, whatever driver or layer reports it, is raised as `DatabaseUnavailable`.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import sqlalchemy as sa

from service.errors import DatabaseUnavailable
from service.store import engine, postgres
from service.store.connections import AWAY, Connections
from service.store.outages import Outages, ReadOnly, Unfit, is_lost, is_outage
from service.store.pipeline import Unexpected
from service.store.sealer import KeySource, Sealer
from service.store.sqlite_writers import Writers
from service.store.statement import Row as Row
from service.store.transaction import InsertOnce as InsertOnce
from service.store.transaction import Transaction as Transaction
from service.store.transaction import clock_ms as clock_ms
from service.store.transaction_retry import collision_of, retry_collisions

T = TypeVar("T")
QUEUE_PATIENCE = (
    4  # times `patience`: waiting for a connection, or for SQLite's write lock, in a queue that moves
)
CHECK_SECONDS = 30.0  # between two checks whether this code may use the database
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
    """Database of one process, made after fork, with at most `pool_size` connections.

    `patience`: seconds to retry while the database is away, as during a restart. `check(connection)` runs before the
    first transaction and every `CHECK_SECONDS`, as migrations may run meanwhile; raises `Unfit`. `retried(cause)` is
    called before a transaction is run again: `deadlock`, `serialization_failure` or `unexpected_result`. `keys`: under
    which texts are sealed; None: they are not.
    """

    name: ClassVar[str] = "service"  # in its log lines
    pragmas: ClassVar[Sequence[str]] = ()  # of SQLite, besides the usual ones

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 10,
        patience: float = 5.0,
        check: Callable[[sa.Connection], None] | None = None,
        retried: Callable[[str], object] = lambda cause: None,
        keys: KeySource | None = None,
    ) -> None:
        self.sqlite = url.startswith("sqlite")
        self.patience = patience
        self.engine = engine.create(url, pool_size, patience, self.pragmas)
        self.audited: Callable[[], object] = lambda: None  # called after a commit that added to the audit
        self._check = check
        self._check_at = 0.0  # time.monotonic()
        self._retried = retried
        self._outages = Outages(self.name)
        self._sealer = Sealer(keys)
        self._driver: Any = self.engine.dialect.loaded_dbapi  # the module, for its exceptions
        self._connections = Connections(
            pool_size, patience * QUEUE_PATIENCE, self._reconnect, self._idle_connections
        )
        self._discard_before = 0.0  # time.monotonic(): connections made until then are not used again
        self._writers: Writers | None = None
        if self.sqlite:
            self._writers = Writers(Path(self.engine.url.database or ""), patience * QUEUE_PATIENCE)

    @contextmanager
    def begin(
        self, *, priority: bool = False, pipelined: bool = False, ids: list[str] | None = None
    ) -> Iterator[Transaction]:
        """Open a write transaction: commits at the end, rolls back on any exception. `priority`: see `transact`.

        `pipelined`, `ids`: see `Transaction`. Raises `DatabaseUnavailable` when the database cannot be reached or stays
        locked; `Unexpected` where it is pipelined.
        """
        with (
            self._write_lock(priority),
            self._transaction(writes=True, priority=priority, pipelined=pipelined) as transaction,
        ):
            transaction.ids = [] if ids is None else ids
            yield transaction
        transaction.committed()
        if transaction.audited:
            self.audited()

    @contextmanager
    def read(self, *, priority: bool = False) -> Iterator[Transaction]:
        """Open a transaction that reads. On PostgreSQL each statement sees what is committed when it begins, and costs
        one round trip; for one snapshot see `Transaction.use_one_snapshot`."""
        with self._transaction(priority=priority) as transaction:
            yield transaction

    def transact(
        self, work: Callable[[Transaction], T], *, patience: float | None = None, priority: bool = False
    ) -> T:
        """Run `work` in a write transaction; retry on collision, and for `patience` seconds while the database is away.

        `work` must be idempotent: a commit whose answer was lost may have happened. `priority`: before all others of
        this process.
        """
        return self._retry(partial(self._write, work, priority, []), patience)

    @property
    def connections(self) -> tuple[int, int]:
        """Number of connections in use, and the most of them."""
        return self._connections.used, self._connections.most

    def query(
        self, work: Callable[[Transaction], T], *, patience: float | None = None, priority: bool = False
    ) -> T:
        """Run `work` in a read transaction, retried as in `transact`."""
        return self._retry(partial(self._read, work, priority), patience)

    def _retry(self, attempt: Callable[[], T], patience: float | None) -> T:
        deadline = time.monotonic() + (self.patience if patience is None else patience)
        pause = 0.02
        while True:
            try:
                return retry_collisions(attempt, self._retried)
            except DatabaseUnavailable:
                if time.monotonic() + pause > deadline or not self._connections.wait_until_back(deadline):
                    raise
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 0.5)

    def _read(self, work: Callable[[Transaction], T], priority: bool) -> T:
        with self.read(priority=priority) as transaction:
            return work(transaction)

    def _write(self, work: Callable[[Transaction], T], priority: bool, ids: list[str]) -> T:
        try:
            return self._write_once(work, self.begin(priority=priority, pipelined=True, ids=ids))
        except Unexpected:
            self._retried("unexpected_result")
            return self._write_once(work, self.begin(priority=priority, ids=ids))

    def _write_once(self, work: Callable[[Transaction], T], begun: AbstractContextManager[Transaction]) -> T:
        """Run `work` in a transaction. Raises `Unexpected` where it is pipelined."""
        with begun as transaction:
            try:
                return work(transaction)
            except Exception as error:
                if transaction.assumes:  # the error may come from an assumption that does not hold
                    raise Unexpected from error
                raise

    def ping(self) -> None:
        """Run a trivial statement. Raises `DatabaseUnavailable` when it fails, or where writes are refused."""
        with self.read() as transaction:
            found = transaction.row(_READ_ONLY_FILE if self.sqlite else _READ_ONLY)
            if found is None or found["read_only"] != "off":
                raise ReadOnly
        if self._outages.refuses_writes:
            raise DatabaseUnavailable(AWAY)

    def vacuum(self, tables: Sequence[str]) -> None:
        """Remove deleted rows of tables from the database's files, of SQLite from the whole file.

        Raises `DatabaseUnavailable`.
        """
        with self._write_lock(False), self._outage_as_unavailable():
            if self.sqlite:
                engine.vacuum_file(self.engine, self.patience)
            else:
                postgres.vacuum(self.engine, tables)

    def close(self) -> None:
        self._connections.close()
        self._discard_before = (
            math.inf
        )  # a thread may still have a connection, which the pool no longer closes
        self.engine.dispose()
        if self._writers is not None:
            self._writers.close()

    def _write_lock(self, priority: bool) -> AbstractContextManager[None]:
        return nullcontext() if self._writers is None else self._writers.turn(priority=priority)

    @contextmanager
    def _transaction(
        self, *, writes: bool = False, priority: bool = False, pipelined: bool = False
    ) -> Iterator[Transaction]:
        """BEGIN and COMMIT by the driver: SQLAlchemy's own connection takes ten times as long for them."""
        with self._outage_as_unavailable(), self._connections.slot(priority=priority):
            pooled = self._checkout()
            created_at = pooled.info[engine.CREATED_AT]
            try:
                self._check_fitness(pooled)
                if self.sqlite:  # locks at once: upgrading a read lock later can only fail
                    pooled.cursor().execute("BEGIN IMMEDIATE" if writes else "BEGIN")
                    transaction = Transaction(self.engine, pooled, self._sealer)
                else:
                    begin = postgres.begin(pooled.info, writes=writes)
                    transaction = Transaction(self.engine, pooled, self._sealer, begin, pipelined=pipelined)
                yield transaction
                transaction.commit()
            except (self._driver.Error, sa.exc.DBAPIError, ReadOnly) as error:
                if not self._is_lost(error, pooled):
                    raise
                self._discard_pool(created_at)
                self._outages.report(error)
                raise DatabaseUnavailable(AWAY) from error
            finally:
                if pooled.is_valid and created_at <= self._discard_before:
                    pooled.invalidate()
                pooled.close()  # rolls back an open transaction
        if self._outages.cause:
            self._outages.over(wrote=writes)

    def _checkout(self) -> Any:
        try:
            return self.engine.raw_connection()
        except (self._driver.Error, sa.exc.DBAPIError):
            self._reconnect_in_background()
            raise

    def _reconnect_in_background(self) -> None:
        if not self.sqlite:  # a file is opened again with the next transaction
            self._connections.lost()

    def _reconnect(self) -> None:
        """Connect once outside the pool. Raises the driver's error, after it is logged."""
        try:
            postgres.reach(self.engine)
        except self._driver.Error as error:
            self._outages.report(error)
            raise

    def _idle_connections(self) -> int:
        return int(self.engine.pool.checkedin())  # type: ignore[attr-defined]

    def _check_fitness(self, pooled: Any) -> None:
        """Raise `Unfit` for a database not to be used; in a transaction of its own, before `use_one_snapshot`."""
        if self._check is not None and time.monotonic() >= self._check_at:
            self._check(sa.Connection(self.engine, connection=pooled))
            self._check_at = time.monotonic() + CHECK_SECONDS
            pooled.rollback()

    def _is_lost(self, error: Exception, pooled: Any) -> bool:
        if is_lost(error) or getattr(error, "connection_invalidated", False):
            return True
        driver_error: Any = getattr(error, "orig", error)
        return self.engine.dialect.is_disconnect(driver_error, pooled.driver_connection, None)

    def _discard_pool(self, created_at: float) -> None:
        """Close all connections, those in use once they are returned: after a failover the server may be another.

        Once per outage: a failed connection with an earlier `created_at` belongs to a pool that was discarded already.
        """
        if created_at > self._discard_before:
            self._discard_before = time.monotonic()
            self.engine.dispose()
            self._reconnect_in_background()

    @contextmanager
    def _outage_as_unavailable(self) -> Iterator[None]:
        """Raise `DatabaseUnavailable` for every error that means an outage; log it unless it is a collision."""
        try:
            yield
        except (*_DOWN, self._driver.Error, sa.exc.DBAPIError) as error:
            down = (*_DOWN, self._driver.OperationalError, self._driver.InterfaceError)
            if not (isinstance(error, down) or is_outage(error)):
                raise
            if collision_of(error) is None:
                self._outages.report(error)
            raise DatabaseUnavailable(AWAY) from error
