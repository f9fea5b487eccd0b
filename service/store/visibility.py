"""Visibility: which rows of runs, sessions, approvals and the ledger a caller may read and change.

One rule for every query: a user's own rows, or everybody's for operators and admins; and with scopes, such as an API
key's, only rows of the agents that these name. What is not visible does not exist for that caller: 404, not 403.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.types import Caller

AGENTS = (
    "agents:"  # how a scope begins that names an agent, or with a `*` at its end all whose names begin so
)
_SEES_ALL = frozenset({"operator", "admin"})


def allows(scopes: Sequence[str], scope: str) -> bool:
    """Whether scopes allow `scope`, such as `agents:support`. No scopes at all: everything the user may."""
    return not scopes or any(_matches(pattern, scope) for pattern in scopes)


class Visibility(NamedTuple):
    """Filter of rows that have a `user_id` and an `agent`."""

    user_id: str | None = None  # None: everybody's rows
    scopes: tuple[str, ...] = ()

    def covers(self, user_id: str, agent: str) -> bool:
        """Whether a row that has been read is visible."""
        return self.user_id in (None, user_id) and allows(self.scopes, AGENTS + agent)

    def where(self, table: sa.Table) -> list[sa.ColumnElement[bool]]:
        """The same in SQL, so that a page of a list is full although other rows lie between its own."""
        conditions: list[sa.ColumnElement[bool]] = []
        if self.user_id is not None:
            conditions.append(table.c.user_id == self.user_id)
        if self.scopes:
            conditions.append(_of_agents(table.c.agent, self.scopes))
        return conditions


UNRESTRICTED = Visibility()  # of the service itself and its command line


def visible_to(caller: Caller, *, own: bool = False) -> Visibility:
    """What a caller may see; `own`: only what is the caller's own, whatever the role."""
    everybodys = caller.role in _SEES_ALL and not own
    return Visibility(None if everybodys else caller.user_id, caller.scopes)


def _matches(pattern: str, scope: str) -> bool:
    return scope.startswith(pattern[:-1]) if pattern.endswith("*") else scope == pattern


def _of_agents(column: sa.Column[Any], scopes: Sequence[str]) -> sa.ColumnElement[bool]:
    """Compile the scopes of agents to SQL. Not LIKE, which takes `_` for any letter, and in SQLite `A` for `a`."""
    names = [scope.removeprefix(AGENTS) for scope in scopes if scope.startswith(AGENTS)]
    exact = [name for name in names if not name.endswith("*")]
    begins = [name[:-1] for name in names if name.endswith("*")]
    return sa.or_(column.in_(exact), *(sa.func.substr(column, 1, len(begin)) == begin for begin in begins))
