"""Visibility: which rows of runs, sessions, approvals and the ledger a caller may read and change.

One rule for every query: a user's own rows, or all rows for operators and admins; with scopes, such as an API key's,
only rows of the agents in scope. An invisible row answers 404, not 403.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.types import Caller

AGENTS = "agents:"  # prefix of a scope for an agent; with a `*` at its end, for all agents with that prefix
_SEES_ALL = frozenset({"operator", "admin"})


def allows(scopes: Sequence[str], scope: str) -> bool:
    """Return whether scopes allow `scope`, such as `agents:support`. Empty scopes allow everything."""
    return not scopes or any(_matches(pattern, scope) for pattern in scopes)


class Visibility(NamedTuple):
    """Row filter for tables with `user_id` and `agent`."""

    user_id: str | None = None  # None: all users
    scopes: tuple[str, ...] = ()

    def covers(self, user_id: str, agent: str) -> bool:
        """Return whether a row with these values is visible."""
        return self.user_id in (None, user_id) and allows(self.scopes, AGENTS + agent)

    def where(self, table: sa.FromClause) -> list[sa.ColumnElement[bool]]:
        """Compile the filter to SQL, so that a page of a list is full although invisible rows lie between its own."""
        conditions: list[sa.ColumnElement[bool]] = []
        if self.user_id is not None:
            conditions.append(table.c.user_id == self.user_id)
        if self.scopes:
            conditions.append(_of_agents(table.c.agent, self.scopes))
        return conditions


UNRESTRICTED = Visibility()  # for the service itself and its command line


def visible_to(caller: Caller, *, own: bool = False) -> Visibility:
    """Visibility of a caller by role and scopes; `own`: the caller's rows only, whatever the role."""
    sees_all = caller.role in _SEES_ALL and not own
    return Visibility(None if sees_all else caller.user_id, caller.scopes)


def _matches(pattern: str, scope: str) -> bool:
    return scope.startswith(pattern[:-1]) if pattern.endswith("*") else scope == pattern


def _of_agents(column: sa.ColumnElement[Any], scopes: Sequence[str]) -> sa.ColumnElement[bool]:
    """Compile agent scopes to SQL. Not LIKE: its `_` is a wildcard, and SQLite's ignores case."""
    names = [scope.removeprefix(AGENTS) for scope in scopes if scope.startswith(AGENTS)]
    exact = [name for name in names if not name.endswith("*")]
    begins = [name[:-1] for name in names if name.endswith("*")]
    return sa.or_(column.in_(exact), *(sa.func.substr(column, 1, len(begin)) == begin for begin in begins))
