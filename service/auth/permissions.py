"""Permissions: one row for each route: lowest role, action, API keys, and whose rows it reaches.

`guard` (`service/web/admission.py`) holds requests to the row of their route; a route without one is refused. A scope
of a key restricts it in one of four kinds, `agents:`, `actions:`, `models:` and `tools:`; a kind without scopes is
unrestricted.
`docs/permissions.md` is generated from here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, NamedTuple

from service.errors import Forbidden
from service.store.visibility import ACTIONS, MODELS, allows, of_kind
from service.types import DEFAULT_WORKSPACE, Caller

Lowest = Literal["anyone", "user", "operator", "admin", "service admin"]
Whose = Literal["", "own", "workspace", "service"]
_RANK = {"user": 0, "operator": 1, "admin": 2, "service admin": 3}
# Rows to which an owner of the service must be able to trace changes, whatever their role.
_AUDITED = frozenset({"account", "keys", "approvals", "admin"})
_SCOPE = re.compile(
    r"agents:(\*|[a-z][a-z0-9_-]{0,63}\*?)|actions:(?P<action>\*|[a-z]+:(\*|[a-z]+))"
    r"|models:(\*|[a-z0-9][a-z0-9._-]{0,127})|tools:(\*|read|write|danger)",
    re.ASCII,
)


class Permission(NamedTuple):
    """Rule of a route. `action` is empty where no caller is needed.

    `whose`: rows that it reaches. "workspace": for operators and admins those of their workspace, which for the
    service's own admins is every one; for users their own. `keys`: API keys may. `found_first`: the role is checked
    once the object is found, so that one which the caller does not see is 404, and not 403.
    """

    action: str = ""
    role: Lowest = "user"
    whose: Whose = ""
    keys: bool = True
    found_first: bool = False

    @property
    def audited(self) -> bool:
        """Return whether refused changes are recorded."""
        return self.action.partition(":")[0] in _AUDITED

    def check(self, caller: Caller) -> None:
        """Check key, action and, unless `found_first`, role. Raises `Forbidden`."""
        # A leaked key must not create other or wider keys, or forge webhooks.
        if not self.keys and (caller.key_id is not None or caller.scopes):
            raise Forbidden("Sign in to do this; an API key cannot.")
        if not allows(caller.scopes, ACTIONS + self.action):
            raise Forbidden(f"The scopes of this API key do not allow {self.action}.")
        if not self.found_first:
            self.check_role(caller)

    def check_role(self, caller: Caller) -> None:
        """Check the role. An admin whose rights end at no workspace is an admin of the service. Raises `Forbidden`."""
        if _rank(caller.role, caller.workspace_id) < _RANK[self.role]:
            raise Forbidden(f"This needs the role {self.role}.")


def _rank(role: str, workspace_id: str) -> int:
    """Return the rank of a user; an unknown role has the lowest."""
    service = (role, workspace_id) == ("admin", DEFAULT_WORKSPACE)
    return _RANK["service admin"] if service else _RANK.get(role, 0)


def check_credential(caller: Caller, role: str, workspace_id: str) -> None:
    """Check that a caller may set the password or role of a user with this role, their own included.

    Knowing either, a caller can sign in as that user, without the scopes of a key. So one with scopes may for users
    of a lower rank only. Raises `Forbidden`.
    """
    if caller.scopes and _rank(role, workspace_id) >= _rank(caller.role, caller.workspace_id):
        raise Forbidden("An API key with scopes sets passwords and roles of users below its own only.")


def check_models(caller: Caller, agent: str, models: Iterable[str]) -> None:
    """Check that a key restricted to some models may start an agent: each model of its tiers is among them.

    Raises `Forbidden`.
    """
    for model in models if caller.scopes else ():
        if not allows(caller.scopes, MODELS + model):
            raise Forbidden(
                f"The scopes of this API key do not allow the model {model}, which {agent} may use."
            )


def may_ask_model(caller: Caller, model: str) -> bool:
    """Return whether a caller may ask a model as it is: without scopes, as their user; else by a scope that names it.

    Unlike elsewhere, a caller with scopes of other kinds only may not: these were given for agents.
    """
    named = of_kind(caller.scopes, MODELS)
    return not caller.scopes or (bool(named) and allows(named, MODELS + model))


def check_model(caller: Caller, model: str) -> None:
    """Check that a caller may ask a model as it is. Raises `Forbidden`."""
    if not may_ask_model(caller, model):
        raise Forbidden(f"The scopes of this API key do not allow to ask {model}: it needs models:{model}.")


_PUBLIC = Permission(role="anyone", keys=False)
PERMISSIONS: dict[str, Permission] = {
    "GET /": _PUBLIC,
    "GET /assets/<path:name>": _PUBLIC,
    "GET /docs": _PUBLIC,
    "GET /docs/errors": _PUBLIC,
    "GET /openapi.json": _PUBLIC,
    "GET /health": _PUBLIC,
    "GET /ready": _PUBLIC,
    "GET /metrics": _PUBLIC,
    "GET /.well-known/jwks.json": _PUBLIC,
    "POST /page/sign-in": _PUBLIC,
    "POST /page/renew": _PUBLIC,
    "POST /page/sign-out": _PUBLIC,
    "GET /page/oidc/begin": _PUBLIC,
    "GET /page/oidc/callback": _PUBLIC,
    "POST /v1/auth/login": _PUBLIC,
    "POST /v1/auth/refresh": _PUBLIC,
    "POST /v1/auth/logout": Permission("account:write", whose="own", keys=False),
    "GET /v1/auth/me": Permission("account:read", whose="own"),
    "GET /v1/auth/keys": Permission("keys:read", whose="own"),
    "POST /v1/auth/keys": Permission("keys:write", whose="own", keys=False),
    "PATCH /v1/auth/keys/<key_id>": Permission("keys:write", whose="own", keys=False),
    "POST /v1/auth/keys/<key_id>/rotate": Permission("keys:write", whose="own", keys=False),
    "DELETE /v1/auth/keys/<key_id>": Permission("keys:write", whose="own", keys=False),
    "GET /v1/webhooks/secret": Permission("webhooks:read", whose="own", keys=False),
    "GET /v1/agents": Permission("agents:read"),
    "GET /v1/agents/<agent>": Permission("agents:read"),
    "GET /v1/models": Permission("agents:read"),
    "GET /v1/models/<agent>": Permission("agents:read"),
    "POST /v1/agents/<agent>/invoke": Permission("runs:write", whose="own"),
    "POST /v1/agents/<agent>/stream": Permission("runs:write", whose="own"),
    "GET /v1/agents/<agent>/chat": Permission("runs:write", whose="own"),
    "POST /v1/agents/<agent>/tasks": Permission("runs:write", whose="own"),
    "POST /v1/agents/<agent>/estimate": Permission("runs:read", whose="own"),
    "POST /v1/chat/completions": Permission("runs:write", whose="own"),
    "POST /v1/responses": Permission("runs:write", whose="own"),
    "GET /v1/responses/<response_id>": Permission("runs:read", whose="own"),
    "DELETE /v1/responses/<response_id>": Permission("runs:write", whose="own"),
    "POST /v1/responses/<response_id>/cancel": Permission("runs:write", whose="own"),
    "GET /v1/responses/<response_id>/input_items": Permission("runs:read", whose="own"),
    "POST /v1/messages": Permission("runs:write", whose="own"),
    "POST /v1/messages/count_tokens": Permission("runs:write", whose="own"),
    "GET /v1/runs": Permission("runs:read", whose="workspace"),
    "GET /v1/runs/<run_id>": Permission("runs:read", whose="workspace"),
    "GET /v1/runs/<run_id>/events": Permission("runs:read", whose="workspace"),
    "POST /v1/runs/<run_id>/cancel": Permission("runs:write", whose="workspace"),
    "POST /v1/runs/<run_id>/fork": Permission("runs:write", whose="workspace"),
    "POST /v1/runs/<run_id>/feedback": Permission("runs:write", whose="own"),
    "GET /v1/sessions": Permission("sessions:read", whose="workspace"),
    "POST /v1/sessions": Permission("sessions:write", whose="own"),
    "GET /v1/sessions/<session_id>": Permission("sessions:read", whose="workspace"),
    "GET /v1/sessions/<session_id>/export": Permission("sessions:read", whose="workspace"),
    "PATCH /v1/sessions/<session_id>": Permission("sessions:write", whose="own"),
    "DELETE /v1/sessions/<session_id>": Permission("sessions:write", whose="own"),
    "GET /v1/schedules": Permission("schedules:read", whose="workspace"),
    "POST /v1/schedules": Permission("schedules:write", whose="own"),
    "GET /v1/schedules/<schedule_id>": Permission("schedules:read", whose="workspace"),
    "PATCH /v1/schedules/<schedule_id>": Permission("schedules:write", whose="own"),
    "DELETE /v1/schedules/<schedule_id>": Permission("schedules:write", whose="own"),
    "GET /v1/memory": Permission("memory:read", whose="own"),
    "GET /v1/memory/<note_key>": Permission("memory:read", whose="own"),
    "PUT /v1/memory/<note_key>": Permission("memory:write", whose="own"),
    "DELETE /v1/memory/<note_key>": Permission("memory:write", whose="own"),
    "GET /v1/approvals": Permission("approvals:read", whose="workspace"),
    "POST /v1/approvals/<approval_id>": Permission(
        "approvals:decide", "operator", "workspace", found_first=True
    ),
    "GET /v1/usage": Permission("usage:read", whose="workspace"),
    "GET /v1/budget": Permission("usage:read", whose="workspace"),
    "GET /v1/admin/audit": Permission("admin:audit", "operator", "workspace"),
    "GET /v1/admin/audit/verify": Permission("admin:audit", "operator", "workspace"),
    "GET /v1/admin/budgets": Permission("admin:budgets", "admin", "workspace"),
    "PUT /v1/admin/budgets/<path:scope>": Permission("admin:budgets", "admin", "workspace"),
    "GET /v1/admin/users": Permission("admin:users", "admin", "workspace"),
    "POST /v1/admin/users": Permission("admin:users", "admin", "workspace"),
    "PATCH /v1/admin/users/<user_id>": Permission("admin:users", "admin", "workspace"),
    "DELETE /v1/admin/users/<user_id>": Permission("admin:users", "admin", "workspace"),
    "GET /v1/admin/users/<user_id>": Permission("admin:users", "admin", "workspace"),
    "GET /v1/admin/users/<user_id>/keys": Permission("admin:users", "admin", "workspace"),
    "DELETE /v1/admin/users/<user_id>/keys/<key_id>": Permission("admin:users", "admin", "workspace"),
    "DELETE /v1/admin/users/<user_id>/logins": Permission("admin:users", "admin", "workspace"),
    "GET /v1/admin/users/<user_id>/export": Permission("admin:users", "admin", "workspace"),
    "POST /v1/admin/users/<user_id>/erase": Permission("admin:users", "admin", "workspace"),
    "POST /v1/admin/agents/<agent>/stop": Permission("admin:agents", "service admin", "service"),
    "POST /v1/admin/agents/<agent>/release": Permission("admin:agents", "service admin", "service"),
    "GET /v1/admin/agents/<agent>/versions": Permission("admin:agents", "service admin", "service"),
    "POST /v1/admin/agents/<agent>/versions": Permission("admin:agents", "service admin", "service"),
    "GET /v1/admin/health": Permission("admin:health", "operator", "workspace"),
    "GET /v1/admin/knowledge/<agent>": Permission("admin:knowledge", "operator", "workspace"),
    "POST /v1/admin/knowledge/<agent>": Permission("admin:knowledge", "admin", "workspace"),
    "GET /v1/admin/knowledge/<agent>/<document_id>": Permission("admin:knowledge", "operator", "workspace"),
    "DELETE /v1/admin/knowledge/<agent>/<document_id>": Permission("admin:knowledge", "admin", "workspace"),
    "GET /v1/admin/workspaces": Permission("admin:workspaces", "service admin", "service"),
    "POST /v1/admin/workspaces": Permission("admin:workspaces", "service admin", "service"),
    "GET /v1/admin/workspaces/<workspace_id>": Permission("admin:workspaces", "service admin", "service"),
    "PATCH /v1/admin/workspaces/<workspace_id>": Permission("admin:workspaces", "service admin", "service"),
    "DELETE /v1/admin/workspaces/<workspace_id>": Permission("admin:workspaces", "service admin", "service"),
}
KEY_ACTIONS = sorted({row.action for row in PERMISSIONS.values() if row.keys})


def check_scope(scope: str) -> str:
    """Return a scope that a key may have. Raises `ValueError` for any other, such as one of an unknown action."""
    fits = _SCOPE.fullmatch(scope)
    if fits is None:
        raise ValueError(
            "must be such as agents:support, agents:sup*, actions:runs:read, actions:runs:*, models:* or tools:read"
        )
    action = fits["action"]
    if action is not None and not any(allows([scope], ACTIONS + known) for known in KEY_ACTIONS):
        raise ValueError(f"{action} is no action of an API key: {', '.join(KEY_ACTIONS)}")
    return scope
