"""Connection to PostgreSQL that sends several statements in one round trip and prepares each once.

psycopg's pipeline waits for the socket and writes to it twice for each statement, and each time another thread may take
the interpreter: eight statements cost 0.46 ms of CPU, here 0.08 (docs/adr/0018). So these are libpq's own calls.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Generator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import psycopg
from psycopg import abc, generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult

STATEMENT_MS = 15_000  # the server's `statement_timeout`
ANSWER_SECONDS = STATEMENT_MS / 1000 + 5  # of a round trip, for a server that hangs and does not enforce it
MAX_PREPARED = 300  # statements of a connection; further ones are planned each time
_PARAMETER = re.compile(r"%(?:\((\w+)\)s|%)")
_numbers = itertools.count()
_PREPARES = 2  # results of a statement that is prepared first
Call = tuple[str, Mapping[str, Any] | None]  # SQL with psycopg's named parameters, and their values


class Answer:
    """Result of a statement, as a cursor has it."""

    __slots__ = ("_rows", "rowcount")

    def __init__(self, result: PGresult, adapter: abc.Transformer) -> None:
        found = result.status == ExecStatus.TUPLES_OK
        adapter.set_pgresult(result)
        self._rows: list[Any] = adapter.load_rows(0, result.ntuples, tuple) if found else []
        self.rowcount = result.ntuples if found else result.command_tuples or 0

    def fetchall(self) -> list[Any]:
        return self._rows


class Connection(psycopg.Connection[Any]):
    """Connection that is closed when an answer takes longer than `ANSWER_SECONDS`.

    `prepared`: names of what `exchange` has prepared, by text; None: behind a pooler, nothing is. psycopg itself has to
    prepare nothing, as its rollback would deallocate these too.
    """

    prepared: dict[str, bytes] | None = None

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        try:
            return super().wait(gen, *args, **{"timeout": ANSWER_SECONDS, **options})
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise

    def rollback(self) -> None:
        """Roll back; of a closed connection the server has done it. SQLAlchemy's pool would log the error."""
        if not self.closed:
            super().rollback()

    def exchange(self, calls: Sequence[Call]) -> list[Answer]:
        """Send statements in one round trip; return their answers. Raises the error of the first that fails."""
        adapter, fresh = Transformer(self), dict[str, bytes]()
        ready = [(sql, *_ready(adapter, sql, values)) for sql, values in calls]
        try:
            self.pgconn.enter_pipeline_mode()
            counts = [self._send(*each, fresh) for each in ready]
            ends = list(itertools.accumulate(counts))
            self.pgconn.pipeline_sync()
            results = self.wait(_fetched(self.pgconn, ends[-1]))
            self.pgconn.exit_pipeline_mode()
        except BaseException:
            self.close()  # an unread answer must not be taken for that of a later statement
            raise
        if self.prepared is not None:  # also in a transaction that is rolled back
            for (sql, *_), count, end in zip(ready, counts, ends, strict=True):
                if count == _PREPARES and results[end - 2].status == ExecStatus.COMMAND_OK:
                    self.prepared[sql] = fresh[sql]
        for result in results:
            if result.status == ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result)
        return [Answer(results[end - 1], adapter) for end in ends]

    def _send(self, sql: str, text: bytes, values: list[Any], fresh: dict[str, bytes]) -> int:
        """Send a statement, prepared unless behind a pooler or beyond the most; return how many results it has."""
        prepared = self.prepared or {}
        name = prepared.get(sql) or fresh.get(sql)
        if name is None and (self.prepared is None or len(prepared) >= MAX_PREPARED):
            self.pgconn.send_query_params(text, values)
            return 1
        if name is not None:
            self.pgconn.send_query_prepared(name, values)
            return 1
        name = fresh[sql] = b"slipway_%d" % next(_numbers)
        self.pgconn.send_prepare(name, text)
        self.pgconn.send_query_prepared(name, values)
        return _PREPARES


def _fetched(pgconn: PGconn, count: int) -> Generator[Any, Any, list[PGresult]]:
    """Flush what was sent, for `Connection.wait`; return its `count` results."""
    yield from generators.send(pgconn)
    found: list[PGresult] = []
    for _ in range(count):
        found += yield from generators.fetch_many(pgconn)
    yield from generators.fetch_many(pgconn)  # the answer to the sync
    return found


def _ready(adapter: abc.Transformer, sql: str, values: Mapping[str, Any] | None) -> tuple[bytes, list[Any]]:
    """Return the statement as the server wants it, and its values as text."""
    text, names = _numbered(sql)
    given = [values[name] for name in names] if values else []
    return text, list(adapter.dump_sequence(given, [PyFormat.TEXT] * len(given)))


@lru_cache(maxsize=2 * MAX_PREPARED)
def _numbered(sql: str) -> tuple[bytes, tuple[str, ...]]:
    """Translate named parameters into the server's numbered ones, whose types it infers; return their names."""
    names = dict[str, int]()
    text = _PARAMETER.sub(
        lambda found: f"${names.setdefault(found[1], len(names) + 1)}" if found[1] else "%", sql
    )
    return text.encode(), tuple(names)
