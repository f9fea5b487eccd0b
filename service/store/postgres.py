"""Connections to PostgreSQL, to a server that takes writes, directly or through a pooler such as PgBouncer.

A pooler in transaction mode runs each transaction in any free session, so no session state may be left: behind one,
`statement_timeout` is set in each transaction and no statement is prepared. Each new connection detects a pooler by its
process id: the one a pooler reports differs from `pg_backend_pid()`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

from service.store.postgres_connection import STATEMENT_MS, Connection

CONNECT_SECONDS = 3  # for each host and each of its addresses
POOLER = "pooler"  # key in the `info` of a pooled connection: it leads to a pooler
# A peer that vanished silently is detected after 25 s, not after two hours.
ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 25_000}
# One round trip; sets nothing in a pooler's session.
_BOUND_WHERE_DIRECT = (
    "SELECT CASE WHEN pg_backend_pid() = %s"
    f" THEN set_config('statement_timeout', '{STATEMENT_MS}', false) END IS NOT NULL"
)
# Whatever the database's default: what is read after a lock must be what its last holder has committed.
_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
# `SET` takes no snapshot: `SET TRANSACTION` may still follow.
_BOUND_WHERE_POOLED = f"SET LOCAL statement_timeout = {STATEMENT_MS}"


def connect_args(url: str) -> dict[str, Any]:
    """Return connection arguments that the URL does not set itself; none for SQLite.

    Read-only servers are skipped: after a failover the old primary may still answer. Text is UTF-8 on the wire, so that
    a server of another encoding can say so. The start-up packet holds nothing that a pooler refuses, such as `options`.
    """
    if url.startswith("sqlite"):
        return {}
    defaults = {
        "connect_timeout": CONNECT_SECONDS,
        "client_encoding": "utf8",
        "target_session_attrs": "read-write",
        **ALIVE,
    }
    given = sa.make_url(url).query
    return {
        **{name: value for name, value in defaults.items() if name not in given},
        "prepare_threshold": None,  # see `Connection.prepared`
    }


def connect(_dialect: Any, _record: Any, args: Any, options: Any) -> Connection:
    """Handle psycopg's `do_connect` event: return a `Connection`."""
    return Connection.connect(*args, **options)


def reach(engine: sa.Engine) -> None:
    """Connect as the engine does and close, to test the connection. Raises the driver's error."""
    args, options = _arguments(engine)
    connect(None, None, args, options).close()


def vacuum(engine: sa.Engine, tables: Sequence[str]) -> None:
    """Remove dead rows of tables from their files. Raises the driver's error.

    Over a connection of its own without a time limit: a large table takes minutes. The server skips tables that the
    role may not vacuum; autovacuum removes their dead rows later.
    """
    args, options = _arguments(engine)
    with psycopg.connect(*args, **options, autocommit=True) as connection:
        for table in tables:
            connection.execute(sql.SQL("VACUUM {}").format(sql.Identifier(table)))


def run_alone(engine: sa.Engine, statement: str) -> None:
    """Run a statement that takes long, outside of transactions and without a time limit, as `vacuum` does."""
    args, options = _arguments(engine)
    with psycopg.connect(*args, **options, autocommit=True) as connection:
        connection.execute(sql.SQL(statement))  # of our own words


def _arguments(engine: sa.Engine) -> tuple[Any, dict[str, Any]]:
    args, options = engine.dialect.create_connect_args(engine.url)
    return args, {**options, **connect_args(engine.url.render_as_string(hide_password=False))}


def prepare(connection: Any, record: Any) -> None:
    """Set `statement_timeout` of a new connection: once if it is direct, else with each transaction."""
    try:
        connection.autocommit = True  # `begin` says when a transaction begins
        pid = connection.info.backend_pid
        (direct,) = connection.execute(_BOUND_WHERE_DIRECT, (pid,)).fetchone()
        if direct:
            connection.prepared = {}
        else:
            record.info[POOLER] = True
    except BaseException:
        connection.close()
        raise


def begin(info: Mapping[str, Any], *, writes: bool) -> list[str]:
    """Return the statements that begin a transaction on a connection of this `info`.

    None for one that only reads, directly: each of its statements is one round trip.
    """
    if info.get(POOLER):
        return [_BEGIN, _BOUND_WHERE_POOLED]
    return [_BEGIN] if writes else []
