"""Print docs/permissions.md from the table of permissions: `python -m scripts.permissions_page`."""

from __future__ import annotations

import sys

from service.auth.permissions import KEY_ACTIONS, PERMISSIONS, Permission

HEAD = """# Permissions

Generated from `service/auth/permissions.py` by `make docs`; `make check` compares them.

## Roles

Each role may do what those before it may: `user`, `operator`, `admin`, and the service's own admins (`role: admin` in
the workspace `default`). A call without what its row asks for is 403; a row of somebody else is 404, as if it did not
exist. Every 403 leaves a row in the [audit](audit.md).

| rows | |
| --- | --- |
| own | the caller's |
| workspace | for users their own; for operators and admins those of their workspace; for the service's own admins all |
| service | all |

## Scopes of API keys

A key acts as its user. Scopes restrict it, each kind by itself; a kind without scopes is unrestricted. `*` at the end
stands for any end.

| kind | restricts |
| --- | --- |
| `agents:support`, `agents:sup*`, `agents:*` | agents, with their runs, sessions, approvals and usage; role `user` |
| `actions:runs:read`, `actions:runs:*` | routes, by their action in the table below |
| `models:claude-haiku-4-5`, `models:*` | agents that it starts: all models of their tiers; these models themselves |
| `tools:read`, `tools:write`, `tools:danger`, `tools:*` | tools of its runs, by risk; no other is offered |

A key with scopes, but none of `models:`, asks no [model itself](gateway.md#models-under-your-key).

A key with scopes of any kind sets passwords and roles of users below its user's rank only, never its user's own:
whoever sets a password can sign in with it, without scopes.

A key with scopes asks [models themselves](gateway.md#models-under-your-key) only by scopes of the kind `models:`, and
by no other: those of other kinds were given for agents.

"""
TABLE = """
A key of an operator that decides approvals and does nothing else: `actions:approvals:*`.

## Routes

*found first*: an object that the caller does not see is 404 before the role is checked.

| route | action | role | rows | API keys |
| --- | --- | --- | --- | --- |
"""


def page() -> str:
    """Return the page: one row for each route."""
    actions = ", ".join(f"`{action}`" for action in KEY_ACTIONS)
    rows = "".join(f"{_row(route, permission)}\n" for route, permission in PERMISSIONS.items())
    return f"{HEAD}Actions of keys: {actions}.\n{TABLE}{rows}"


def _row(route: str, permission: Permission) -> str:
    if permission.role == "anyone":
        return f"| `{route}` | | anyone | | |"
    role = permission.role + (", found first" if permission.found_first else "")
    keys = "yes" if permission.keys else "no"
    return f"| `{route}` | `{permission.action}` | {role} | {permission.whose} | {keys} |"


if __name__ == "__main__":
    sys.stdout.write(page())
