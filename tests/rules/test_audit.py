"""Audit rows of every route and command that changes users, keys, caps or approvals, and of every refusal."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.test import TestResponse

from service import approvals
from service.audit.chain import link_all
from service.audit.record import Action
from service.audit.verify import verify_all
from service.auth.users import User
from service.ids import new_id
from service.store.approvals import Decision
from service.types import Caller
from service.web import page_cookie
from tests.conftest import ROOT
from tests.made import app_in, close
from tests.rules.test_actors import REQUESTS, path_of
from tests.rules.test_routes import routes
from tests.rules.world import PASSWORD, World

CANARY = "canary"
REQUEST_ID = "0123456789abcdef"
AUDITED = re.compile(r"(POST|PUT|PATCH|DELETE) /(v1/(admin|auth|approvals)|page)\b")
# What each route that changes something here leaves.
LEAVES: dict[str, Action | None] = {
    "PUT /v1/admin/budgets/<path:scope>": Action.CAP_SET,
    "POST /v1/admin/agents/<agent>/release": Action.AGENT_RELEASED,
    "POST /v1/admin/agents/<agent>/versions": Action.AGENT_PUBLISHED,
    "POST /v1/admin/agents/<agent>/stop": Action.AGENT_STOPPED,
    "POST /v1/admin/knowledge/<agent>": Action.DOCUMENT_ADDED,
    "DELETE /v1/admin/knowledge/<agent>/<document_id>": Action.DOCUMENT_REMOVED,
    "POST /v1/admin/users": Action.USER_CREATED,
    "PATCH /v1/admin/users/<user_id>": Action.USER_ROLE,
    "DELETE /v1/admin/users/<user_id>": Action.USER_DELETED,
    "POST /v1/admin/users/<user_id>/erase": Action.USER_ERASED,
    "DELETE /v1/admin/users/<user_id>/keys/<key_id>": Action.KEY_REVOKED,
    "DELETE /v1/admin/users/<user_id>/logins": Action.USER_LOGINS,
    "POST /v1/admin/workspaces": Action.WORKSPACE_CREATED,
    "PATCH /v1/admin/workspaces/<workspace_id>": Action.WORKSPACE_CHANGED,
    "DELETE /v1/admin/workspaces/<workspace_id>": Action.WORKSPACE_DELETED,
    "POST /v1/approvals/<approval_id>": Action.APPROVAL_DENIED,
    "POST /v1/auth/keys": Action.KEY_CREATED,
    "PATCH /v1/auth/keys/<key_id>": Action.KEY_LIMIT,
    "POST /v1/auth/keys/<key_id>/rotate": Action.KEY_ROTATED,
    "DELETE /v1/auth/keys/<key_id>": Action.KEY_REVOKED,
    "POST /v1/auth/login": Action.SIGN_IN,
    "POST /v1/auth/logout": Action.SIGN_OUT,
    "POST /v1/auth/refresh": None,  # the log-in has its row
    "POST /page/sign-in": Action.SIGN_IN,
    "POST /page/sign-out": Action.SIGN_OUT,
    "POST /page/renew": None,
}
# Refused without a guard: by the log-in itself, and by the token.
ELSEWHERE = {name for name in LEAVES if "/page/" in name} | {
    *("POST /v1/auth/login", "POST /v1/auth/refresh", "POST /v1/auth/logout")
}
# Actions that other tests raise.
RAISED_IN = {
    Action.GUARDRAIL: "tests/runs/guarded.py",
    Action.IDENTITY_LINKED: "tests/oidc/test_identities.py",
    Action.MCP_ACCEPTED: "tests/cli/test_mcp.py",
    Action.MCP_CREDENTIAL: "tests/cli/test_mcp.py",
    Action.AGENT_PINNED: "tests/web/test_agent_versions.py",
    Action.AGENT_CANARY: "tests/web/test_agent_canaries.py",
    Action.AGENT_CANARY_ENDED: "tests/web/test_agent_canaries.py",
    Action.RUN_FORKED: "tests/web/test_forks.py",
    Action.SETTINGS: "tests/audit/test_record.py",
    Action.SIGNING_KEY_ROTATED: "tests/auth/test_signing_keys.py",
    Action.SIGNING_KEYS_ENDED: "tests/auth/test_signing_keys.py",
    Action.SCHEDULE_CREATED: "tests/web/test_schedules.py",
    Action.SCHEDULE_CHANGED: "tests/web/test_schedules.py",
    Action.SCHEDULE_DELETED: "tests/web/test_schedules.py",
    Action.SCHEDULE_STOPPED: "tests/schedules/test_rights.py",
    Action.GUARDRAIL: "tests/runs/test_guardrail_events.py",
    Action.MEMORY_CHANGED: "tests/web/test_memory.py",
    Action.MEMORY_DELETED: "tests/web/test_memory.py",
    Action.USER_EXPORTED: "tests/privacy/test_export.py",
    Action.TOOL_CALLED: "tests/runs/test_tool_execution.py",
    Action.TOOL_FINISHED: "tests/runs/test_tool_execution.py",
}


class Audit(NamedTuple):
    """Application with an admin and a user, and the rows that its audit has gained."""

    app: Flask
    root: User
    ada: User
    seen: list[str]

    def new(self) -> list[dict[str, Any]]:
        """Rows since the last look, oldest first."""
        db = self.app.extensions["slipway"].infra.db
        rows = db.query(lambda tx: list(map(dict, tx.rows(sa.text("SELECT * FROM audit ORDER BY id")))))
        fresh = [row for row in rows if row["id"] not in self.seen]
        self.seen[:] = [row["id"] for row in rows]
        return fresh

    def actions(self) -> list[tuple[str, str]]:
        return [(row["action"], row["result"]) for row in self.new()]

    @property
    def services(self) -> Any:
        return self.app.extensions["slipway"]

    def token(self, user: User, kind: str = "access_token") -> str:
        token: str = self.services.auth.tokens.begin(user).public()[kind]
        self.new()
        return token

    def ask(self, token: str, name: str, path: str, body: Any = None) -> TestResponse:
        headers = {"X-Request-ID": REQUEST_ID}
        client = self.app.test_client()
        if path.startswith("/page/"):
            headers[page_cookie.HEADER] = "1"
            client.set_cookie("slipway", token)
        else:
            headers["Authorization"] = f"Bearer {token}"
        return client.open(path, method=name.partition(" ")[0], json=body, headers=headers, buffered=True)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Audit]:
    app = app_in(tmp_path)
    users = app.extensions["slipway"].auth.users
    audit = Audit(app, users.create("root", PASSWORD, "admin"), users.create(f"{CANARY}-ada", PASSWORD), [])
    audit.new()
    yield audit
    close(app)


def test_every_route_that_changes_something_here_has_its_action(made: Audit) -> None:
    assert {name for name, _ in routes(made.app) if AUDITED.match(name)} == set(LEAVES)


@pytest.mark.parametrize("name", LEAVES)
def test_each_route_leaves_its_row(made: Audit, name: str) -> None:
    path = path_of(World(made.app, made.root, {}), name.split(" ")[1])
    token = made.token(made.root, "refresh_token" if re.search("refresh|page", name) else "access_token")
    answer = made.ask(token, name, path, REQUESTS[name])
    assert answer.status_code // 100 == 2, answer.text
    rows = made.new()
    expected = LEAVES[name]
    assert [(row["action"], row["result"]) for row in rows] == ([(expected, "ok")] if expected else [])
    for row in rows:
        assert (row["actor"], row["user_id"], row["request_id"]) == ("user", made.root.id, REQUEST_ID)
        assert row["address"] == "127.0.0.0/24"
        kind, _, subject = row["subject"].partition(":")
        assert subject in (path.rpartition("/")[2], "") or kind in (
            "user",
            "key",
            "login",
            "workspace",
            "agent",
            "document",
        )


@pytest.mark.parametrize("name", [name for name in LEAVES if name not in ELSEWHERE])
def test_each_route_leaves_a_row_where_it_is_forbidden(made: Audit, name: str) -> None:
    path = path_of(World(made.app, made.ada, {}), name.split(" ")[1])
    key = made.services.auth.keys.create(made.ada.id, "k")["key"]
    made.new()
    answer = made.ask(key, name, path, REQUESTS[name])
    assert answer.status_code == 403, answer.text
    (row,) = made.new()
    assert (row["action"], row["result"], row["user_id"]) == (Action.ACCESS_REFUSED, "refused", made.ada.id)
    assert row["subject"] == f"route:{name}"


def test_change_that_is_refused_leaves_a_row(made: Audit) -> None:
    token = made.token(made.root)
    for name, path, body in (
        ("DELETE", f"/v1/admin/users/{new_id('usr')}", None),
        ("DELETE", f"/v1/auth/keys/{new_id('key')}", None),
        ("POST", f"/v1/approvals/{new_id('apr')}", {"decision": "deny"}),
        ("POST", "/v1/admin/users", {"username": CANARY, "password": "short"}),
        ("PATCH", f"/v1/admin/users/{made.root.id}", {"role": "user"}),
        ("PUT", f"/v1/admin/budgets/user:{new_id('usr')}", {"amount_usd": "1", "period": "day"}),
    ):
        assert made.ask(token, name, path, body).status_code in (404, 409, 422), path
        (row,) = made.new()
        assert (row["action"], row["result"]) == (Action.CHANGE_REFUSED, "refused"), path
        assert path.rpartition("/")[2] in str(row["details"]) or path.endswith("users")
    assert made.ask(token, "GET", f"/v1/runs/{new_id('run')}").status_code == 404
    assert made.new() == []


def test_refused_sign_ins_and_a_token_spent_twice(made: Audit) -> None:
    def sign_in(username: str, password: str) -> None:
        body = {"username": username, "password": password}
        assert made.ask("none", "POST", "/v1/auth/login", body).status_code == 401

    sign_in(made.ada.username, CANARY)
    sign_in(f"{CANARY}@example.com", CANARY)
    rows = made.new()
    assert [(row["action"], row["result"], row["actor"]) for row in rows] == [
        (Action.SIGN_IN, "refused", "anonymous")
    ] * 2
    assert [row["subject"] for row in rows] == [f"user:{made.ada.id}", "user:unknown"]
    token = made.token(made.ada, "refresh_token")
    assert made.ask(token, "POST", "/v1/auth/refresh").status_code == 200
    for _ in range(2):
        assert made.ask(token, "POST", "/v1/auth/refresh").status_code == 401
    assert made.actions() == [(Action.REFRESH_REUSED, "refused")]


CHANGES: list[tuple[dict[str, Any], list[Action]]] = [
    ({"role": "operator"}, [Action.USER_ROLE]),
    ({"limit_runs": "5/minute"}, [Action.USER_LIMIT]),
    ({"disabled": True}, [Action.USER_DISABLED]),
    ({"disabled": False}, [Action.USER_ENABLED]),
    ({"password": f"{CANARY}-password"}, [Action.USER_PASSWORD]),
    ({"role": "user", "limit_runs": ""}, [Action.USER_ROLE, Action.USER_LIMIT]),
]


def test_each_change_of_a_user_and_of_a_cap_has_its_action(made: Audit) -> None:
    token = made.token(made.root)
    for body, actions in CHANGES:
        assert made.ask(token, "PATCH", f"/v1/admin/users/{made.ada.id}", body).status_code == 200
        rows = made.new()
        assert [row["action"] for row in rows] == actions
        assert {row["subject"] for row in rows} == {f"user:{made.ada.id}"}
    for amount, action in (("5", Action.CAP_SET), (None, Action.CAP_REMOVED)):
        body = {"amount_usd": amount, "period": "month"}
        assert made.ask(token, "PUT", f"/v1/admin/budgets/user:{made.ada.id}", body).status_code == 200
        (row,) = made.new()
        assert (row["action"], row["subject"]) == (action, f"user:{made.ada.id}")
        assert "month" in str(row["details"])


COMMANDS: dict[tuple[str, ...], Action] = {
    ("agents", "stop", "support", "--reason", CANARY): Action.AGENT_STOPPED,
    ("agents", "release", "support"): Action.AGENT_RELEASED,
    ("users", "add", "bob", "--password-stdin"): Action.USER_CREATED,
    ("users", "role", "bob", "operator"): Action.USER_ROLE,
    ("users", "limit", "bob", "5/minute"): Action.USER_LIMIT,
    ("users", "logout", "bob"): Action.USER_LOGINS,
    ("users", "disable", "bob"): Action.USER_DISABLED,
    ("users", "disable", "bob", "--undo"): Action.USER_ENABLED,
    ("users", "password", "bob", "--password-stdin"): Action.USER_PASSWORD,
    ("keys", "add", "bob", CANARY): Action.KEY_CREATED,
    ("budgets", "set", "service", "5"): Action.CAP_SET,
    ("budgets", "set", "service", "none"): Action.CAP_REMOVED,
}


def test_commands_leave_rows_of_the_command_line(made: Audit) -> None:
    for words, action in COMMANDS.items():
        done = made.app.test_cli_runner().invoke(args=list(words), input=f"{CANARY}-password\n")
        assert done.exit_code == 0, done.output
        (row,) = made.new()
        assert (row["action"], row["actor"], row["user_id"]) == (action, "cli", None)


def test_no_name_and_no_text_comes_into_the_audit(made: Audit) -> None:
    world = World(made.app, made.ada, {})
    token = made.token(made.root)
    approval = world.make("apr")
    decision = Decision("approve", CANARY, {"text": CANARY}, "dec_1")
    operator = Caller(made.root.id, CANARY, "admin")
    made.services.infra.db.transact(lambda tx: approvals.decide(tx, operator, approval, decision))
    assert made.actions() == [(Action.APPROVAL_APPROVED, "ok")]
    again = {"decision": "deny", "comment": CANARY}
    assert made.ask(token, "POST", f"/v1/approvals/{approval}", again).status_code == 409
    assert made.ask(token, "POST", "/v1/auth/keys", {"name": CANARY}).status_code == 201
    made.ask("none", "POST", "/v1/auth/login", {"username": CANARY, "password": CANARY})
    made.ask(token, "DELETE", f"/v1/admin/users/{made.ada.id}")
    made.seen.clear()
    rows = made.new()
    assert len(rows) > 6 and CANARY not in str(rows)
    link_all(made.services.infra.db)
    assert all(found.ok for found in verify_all(made.services.infra.db))


def test_every_action_is_raised_by_a_test_and_documented() -> None:
    here = Path(__file__).read_text()
    table = (ROOT / "docs" / "audit.md").read_text().partition("| action |")[2].partition("\n\n")[0]
    documented = re.findall(r"^\| `([\w.]+)` \|", table, re.M)
    assert sorted(documented) == sorted(Action)
    for action in Action:
        text = (ROOT / RAISED_IN[action]).read_text() if action in RAISED_IN else here
        assert f"Action.{action.name}" in text, action
