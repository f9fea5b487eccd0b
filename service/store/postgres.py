"""Connections to PostgreSQL: to a server that takes writes, directly or through a pooler such as PgBouncer.

A pooler in transaction mode runs each transaction in whatever session is free, so nothing may stay behind in one: the
time-out of statements is set within each transaction, and no statement is prepared. Whether there is a pooler between
is asked of each new connection: its protocol has no word for it, but the process id that a pooler gives its clients is
not that of the server process.
"""

from __future__ import annotations

from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus

CONNECT_SECONDS = 3  # for each host and each of its addresses
STATEMENT_MS = 15_000
ANSWER_SECONDS = STATEMENT_MS / 1000 + 5  # a server that hangs does not keep its own time-out
PREPARE_AFTER = 5  # executions of a statement, as psycopg has it
BEGIN = "begin"  # in the `info` of a pooled connection: what its transactions begin with; without it psycopg says it
# Of a connection whose other end is gone without a word: lost after 25 s, not after two hours.
ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
# One round trip; nothing is set where the session is a pooler's.
_BOUND_WHERE_DIRECT = (
    "SELECT CASE WHEN pg_backend_pid() = %s"
    f" THEN set_config('statement_timeout', '{STATEMENT_MS}', false) END IS NOT NULL"
)
# One round trip, as BEGIN alone. `SET` takes no snapshot: `SET TRANSACTION` may still follow.
_BEGIN_BOUND = f"BEGIN; SET LOCAL statement_timeout = {STATEMENT_MS}"


def connect_args(url: str) -> dict[str, Any]:
    """Return what the driver connects with, without what the URL says itself; nothing for SQLite.

    A server that is read-only is not connected to: after a failover the old primary may still answer. Text is UTF-8 on
    the wire, so that a server of another encoding can say so. Nothing goes into the start-up packet that a pooler
    refuses, such as `options`.
    """
    if url.startswith("sqlite"):
        return {}
    wanted = {
        "connect_timeout": CONNECT_SECONDS,
        "client_encoding": "utf8",
        "target_session_attrs": "read-write",
        **ALIVE,
    }
    said = sa.make_url(url).query
    return {**{name: value for name, value in wanted.items() if name not in said}, "prepare_threshold": None}


class Connection(psycopg.Connection[Any]):
    """Connection on which no answer is waited for without end: it is closed then."""

    def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        try:
            return super().wait(gen, *args, **{"timeout": ANSWER_SECONDS, **options})
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.close()
            raise


def connect(_dialect: Any, _record: Any, args: Any, options: Any) -> Connection:
    """Listen to `do_connect` of an engine of psycopg, so that its connections are of this kind."""
    return Connection.connect(*args, **options)


def reach(engine: sa.Engine) -> None:
    """Connect as the engine does, and close the connection. Raises the driver's error."""
    args, options = engine.dialect.create_connect_args(engine.url)
    wanted = connect_args(engine.url.render_as_string(hide_password=False))
    connect(None, None, args, {**options, **wanted}).close()


def prepare(connection: Any, record: Any) -> None:
    """Bound the statements of a new psycopg connection: once where it is direct, else with each transaction."""
    try:
        connection.autocommit = True  # or what is set would end with the transaction it was set in
        pid = connection.info.backend_pid
        (direct,) = connection.execute(_BOUND_WHERE_DIRECT, (pid,)).fetchone()
        if direct:
            connection.autocommit = False
            connection.prepare_threshold = PREPARE_AFTER
        else:
            record.info[BEGIN] = _BEGIN_BOUND
    except BaseException:
        connection.close()
        raise
