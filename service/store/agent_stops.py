"""Kill switch: stopped agents, as a condition of the statements without which no run, model or tool call begins."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from service.store import scope_locks
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import agent_stops, runs
from service.store.statement import Statement

_INSERT = InsertOnce(agent_stops)


def mark(agent: str) -> str:
    """Mark of a stopped agent among the revocations that Redis holds, see `service.auth.revocation`."""
    return f"agent:{agent}"


def stopped(agent: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Condition for an agent that is stopped."""
    return sa.exists().where(agent_stops.c.agent == agent)


_STOPPED = Statement(sa.select(agent_stops).where(agent_stops.c.agent == sa.bindparam("agent")))


_RUN_OF = Statement(sa.select(runs.c.id).where(runs.c.agent == sa.bindparam("agent")).limit(1))


def insert_unless_stopped(table: sa.Table, names: Collection[str]) -> Statement:
    """Insert of one row, once, unless its agent is stopped. `names`: columns with values; the others get defaults."""
    given = [column for column in table.c if column.key in names]
    others: list[Any] = [
        column for column in table.c if column.key not in names and column.default is not None
    ]
    values = [sa.bindparam(column.key, type_=column.type) for column in given]
    defaults = [sa.literal(column.default.arg, column.type) for column in others]
    agent = sa.cast(sa.bindparam("agent", type_=sa.String()), sa.String())  # else PostgreSQL infers two types
    row = sa.select(*values, *defaults).where(~stopped(agent))
    return Statement(InsertOnce(table).from_select([*given, *others], row, include_defaults=False))


def stop(tx: Transaction, row: dict[str, Any]) -> bool:
    """Stop an agent; once this is committed, no hold of its runs is. False: it is stopped already."""
    scope_locks.own(tx, f"agent:{row['agent']}")  # waits for holds that have read that it is not
    return tx.execute(_INSERT, row) == 1


def release(tx: Transaction, agent: str) -> bool:
    """Let an agent go on; its paused runs are due with the next sweep. False: it is not stopped."""
    return tx.execute(sa.delete(agent_stops).where(agent_stops.c.agent == agent)) == 1


def get(tx: Transaction, agent: str) -> Row | None:
    return tx.row(_STOPPED, {"agent": agent})


def has_run(tx: Transaction, agent: str) -> bool:
    return tx.row(_RUN_OF, {"agent": agent}) is not None


def every(tx: Transaction) -> list[Row]:
    return tx.rows(sa.select(agent_stops).order_by(agent_stops.c.agent))
