"""Lists by agent: merge the newest rows of each agent in scope, one index range per agent.

A filter by many agents or by a name prefix has no index in order of ids: rows would be scanned until a page is full.
There are few agents, and each has its range in the index. So one index serves a list of all agents, and of one.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.store.database import Row, Transaction
from service.store.visibility import AGENTS, Visibility, allows

MAX_AGENTS = 50  # agents queried one by one; scopes with more of them filter out little


def newest(
    tx: Transaction,
    table: sa.Table,
    query: sa.Select[Any],
    *,
    limit: int,
    visible: Visibility,
    agent: str | None = None,
) -> list[Row]:
    """List rows of `query` whose agent is in scope, or only those of `agent`; newest first by `id`.

    The table needs an index by agent and id; the caller restricts `query` to the rows of the user or workspace.
    """
    candidates = _agents(tx, table, visible._replace(scopes=())) if agent is None else [agent]
    agents = [name for name in candidates if allows(visible.scopes, AGENTS + name)]
    if not agents:
        return []
    page: Any = query.where(*Visibility(None, visible.scopes).where(table))
    if len(agents) <= MAX_AGENTS:
        pages = [_page(query.where(table.c.agent == name), table.c.id, limit) for name in agents]
        page = sa.union_all(*(sa.select(each.subquery()) for each in pages))
    return tx.rows(_page(page, sa.column("id"), limit))


def _page(query: Any, key: sa.ColumnElement[Any], limit: int) -> Any:
    return query.order_by(key.desc()).limit(limit)


def _agents(tx: Transaction, table: sa.Table, visible: Visibility) -> list[str]:
    """List distinct agents by a loose index scan: the first name in the index, then each next greater one."""
    where = visible.where(table)
    first = sa.func.min(table.c.agent).label("agent")
    names = sa.select(first).where(*where).cte("names", recursive=True)
    later = sa.select(sa.func.min(table.c.agent)).where(table.c.agent > names.c.agent, *where)
    step = sa.select(later.correlate(names).scalar_subquery()).where(names.c.agent.is_not(None))
    names = names.union_all(step)
    return [row["agent"] for row in tx.rows(sa.select(names.c.agent).where(names.c.agent.is_not(None)))]
