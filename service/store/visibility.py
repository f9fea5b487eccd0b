"""Visibility: which rows of runs, sessions, approvals and the ledger a caller may read and change.

One rule for every query: a user's own rows, or for operators and admins all rows of their workspace; with scopes, such
as an API key's, only rows of the agents in scope. An invisible row answers 404, not 403.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.schema import users
from service.store.transaction import filter_only
from service.types import DEFAULT_WORKSPACE, Caller

# Kinds of scopes. A `*` at the end of a scope stands for any end.
AGENTS = "agents:"  # such as `agents:support`, `agents:sup*`
ACTIONS = "actions:"  # such as `actions:runs:read`, `actions:runs:*`
MODELS = "models:"  # such as `models:claude-haiku-4-5`, `models:*`
TOOLS = "tools:"  # by risk, such as `tools:read`
_SEES_ALL = frozenset({"operator", "admin"})


def allows(scopes: Sequence[str], scope: str) -> bool:
    """Return whether scopes allow `scope`, such as `agents:support`. Without scopes of its kind all is allowed."""
    if not scopes:
        return True
    same_kind = of_kind(scopes, scope[: scope.index(":") + 1])
    return not same_kind or any(_matches(pattern, scope) for pattern in same_kind)


class Visibility(NamedTuple):
    """Row filter for tables with `user_id` and `agent`, and perhaps `workspace_id`."""

    user_id: str | None = None  # None: all users
    scopes: tuple[str, ...] = ()  # of agents only
    workspace_id: str | None = None  # None: all workspaces, or the user's own

    def covers(self, row: Mapping[str, Any]) -> bool:
        """Return whether a row with these three columns is visible."""
        is_theirs = self.user_id in (None, row["user_id"])
        is_there = self.workspace_id in (None, row["workspace_id"])
        return is_theirs and is_there and allows(self.scopes, AGENTS + row["agent"])

    @property
    def in_small_workspace(self) -> bool:
        """Return whether rows of one workspace are to be found among more of others: by `OF_OTHERS` indexes."""
        return self.workspace_id not in (None, DEFAULT_WORKSPACE)

    def where(self, table: sa.FromClause) -> list[sa.ColumnElement[bool]]:
        """Compile the filter to SQL, so that a page of a list is full although invisible rows lie between its own."""
        conditions = in_workspace(table, self.workspace_id)
        if self.user_id is not None:
            conditions.append(table.c.user_id == self.user_id)
        if self.scopes:
            conditions.append(_of_agents(table.c.agent, self.scopes))
        return conditions


UNRESTRICTED = Visibility()  # for the service itself and its command line


def visible_to(caller: Caller, *, own: bool = False) -> Visibility:
    """Visibility of a caller by role and scopes; `own`: the caller's rows only, whatever the role."""
    agents = of_kind(caller.scopes, AGENTS)
    if own or caller.role not in _SEES_ALL:
        return Visibility(caller.user_id, agents)
    return Visibility(None, agents, caller.confined_to)


def in_workspace(table: sa.FromClause, workspace_id: str | None) -> list[sa.ColumnElement[bool]]:
    """Condition for rows of a workspace; None: for all rows. A table without the column is filtered by its users.

    `default` is filtered without an index, as most rows are its own; others have partial indexes (`OF_OTHERS`).
    """
    if workspace_id is None:
        return []
    if "workspace_id" not in table.c:
        members = sa.select(users.c.id).where(*in_workspace(users, workspace_id))
        itself = sa.select(sa.literal(workspace_id, users.c.id.type))  # for what no user of it has asked
        return [table.c.user_id.in_(members.union_all(itself))]
    of_it = table.c.workspace_id == workspace_id
    if workspace_id == DEFAULT_WORKSPACE:
        return [filter_only(of_it)]
    return [of_it, table.c.workspace_id != sa.literal_column(f"'{DEFAULT_WORKSPACE}'")]


def of_kind(scopes: Sequence[str], kind: str) -> tuple[str, ...]:
    """Return the scopes of a kind, such as `agents:`."""
    return tuple(scope for scope in scopes if scope.startswith(kind))


def _matches(pattern: str, scope: str) -> bool:
    return scope.startswith(pattern[:-1]) if pattern.endswith("*") else scope == pattern


def _of_agents(column: sa.ColumnElement[Any], scopes: Sequence[str]) -> sa.ColumnElement[bool]:
    """Compile agent scopes to SQL. Not LIKE: its `_` is a wildcard, and SQLite's ignores case."""
    names = [scope.removeprefix(AGENTS) for scope in scopes]
    exact = [name for name in names if not name.endswith("*")]
    begins = [name[:-1] for name in names if name.endswith("*")]
    return sa.or_(column.in_(exact), *(sa.func.substr(column, 1, len(begin)) == begin for begin in begins))
