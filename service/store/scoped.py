"""Lists for a caller with scopes: the newest rows of each agent that these name, and the newest of those.

A filter by many agents, or by how their names begin, has no index with its rows in order: it would be read until a page
is full. There are few agents, and each has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from service.store.database import Row, Transaction
from service.store.transaction import PLANNED_ANEW
from service.store.visibility import AGENTS, Visibility, allows

MOST = 50  # agents that are looked at one by one; scopes that name more of them leave little out


def newest(
    tx: Transaction,
    table: sa.Table,
    query: sa.Select[Any],
    *,
    limit: int,
    visible: Visibility,
    agent: str | None = None,
    values: Mapping[str, Any] | None = None,
) -> list[Row]:
    """List rows of `query`, which has an `id`, whose agent the scopes name; or of this one `agent`. Newest first.

    The table needs an index by agent and id; `query` is restricted to the user's rows by the caller.
    """
    known = _agents(tx, table, visible.user_id) if agent is None else [agent]
    agents = [name for name in known if allows(visible.scopes, AGENTS + name)]
    if not agents:
        return []
    page: Any = query.where(*Visibility(None, visible.scopes).where(table))
    if len(agents) <= MOST:
        pages = [_page(query.where(table.c.agent == name), table.c.id, limit) for name in agents]
        page = sa.union_all(*(sa.select(each.subquery()) for each in pages))
    return tx.rows(_page(page, sa.column("id"), limit).execution_options(**PLANNED_ANEW), values)


def _page(query: Any, key: sa.ColumnElement[Any], limit: int) -> Any:
    return query.order_by(key.desc()).limit(limit)


def _agents(tx: Transaction, table: sa.Table, user_id: str | None) -> list[str]:
    """Names of the agents that have rows: the first in an index, then each time the next that differs."""
    mine = [] if user_id is None else [table.c.user_id == user_id]
    first = sa.func.min(table.c.agent).label("agent")
    names = sa.select(first).where(*mine).cte("names", recursive=True)
    later = sa.select(sa.func.min(table.c.agent)).where(table.c.agent > names.c.agent, *mine)
    step = sa.select(later.correlate(names).scalar_subquery()).where(names.c.agent.is_not(None))
    names = names.union_all(step)
    return [row["agent"] for row in tx.rows(sa.select(names.c.agent).where(names.c.agent.is_not(None)))]
