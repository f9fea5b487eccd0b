"""Permissions: the table has every route, and each row is what the running service does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from flask import Flask

from service.auth.permissions import KEY_ACTIONS, PERMISSIONS, check_scope
from tests.conftest import ROOT
from tests.made import app_in, close
from tests.rules.test_routes import routes
from tests.rules.test_visibility import OBJECTS
from tests.rules.world import AGENT, BODIES, PASSWORD, World, world
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url", "world"]
RANK = ("user", "operator", "admin", "service admin")
UNLIMITED = dict.fromkeys(("LIMIT_READS", "LIMIT_WRITES", "LIMIT_RUNS", "LIMIT_LOGIN"), "")


class Person(NamedTuple):
    """Caller of the matrix: a role, and the scopes of a key, None for a token."""

    role: str
    secret: str
    scopes: tuple[str, ...] | None


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    app = app_in(tmp_path_factory.mktemp("permissions"), **UNLIMITED)
    yield app
    close(app)


def people(app: Flask) -> Iterator[Person]:
    """Each role, with a token and with keys of several scopes."""
    auth, db = app.extensions["slipway"].auth, app.extensions["slipway"].infra.db
    acme = auth.workspaces.new_row("acme")
    db.transact(lambda tx: auth.workspaces.insert(tx, acme))
    for role in RANK:
        stored, where = ("admin", "default") if role == "service admin" else (role, "acme")
        place = {"workspace_id": acme["id"]} if where == "acme" else {}
        user = auth.users.create(f"{role.replace(' ', '-')}", PASSWORD, stored, **place)
        yield Person(role, auth.tokens.begin(user).public()["access_token"], None)
        actions = [(f"actions:{action}",) for action in KEY_ACTIONS]
        groups = sorted({(f"actions:{action.partition(':')[0]}:*",) for action in KEY_ACTIONS})
        for scopes in ((), (f"agents:{AGENT}",), ("models:*",), ("actions:*",), *groups, *actions):
            yield Person(role, auth.keys.create(user.id, "k", scopes)["key"], scopes)


def expected(name: str, person: Person) -> bool:
    """Whether the table lets them call a route, told in other words than the code's."""
    row = PERMISSIONS[name]
    if row.role == "anyone" or (person.scopes is not None and not row.keys):
        return row.role == "anyone"
    actions = [scope[len("actions:") :] for scope in person.scopes or () if scope.startswith("actions:")]
    group = row.action.partition(":")[0]
    if actions and not {row.action, f"{group}:*", "*"} & set(actions):
        return False
    role = "user" if any(scope.startswith("agents:") for scope in person.scopes or ()) else person.role
    return row.found_first or RANK.index(role) >= RANK.index(row.role)


def test_every_route_has_its_row_and_every_row_its_route(made: Flask) -> None:
    assert {name for name, _ in routes(made)} == set(PERMISSIONS)


def test_each_role_and_key_may_call_what_its_row_says(made: Flask) -> None:
    names = sorted((name for name in PERMISSIONS if "/page/" not in name), key=lambda name: "logout" in name)
    client, wrong, asked = made.test_client(), [], 0
    for person in people(made):
        for name in names:
            method, rule = name.split(" ")
            answer = client.open(
                re.sub(r"<[^>]+>", "nothing", rule),
                method=method,
                headers={"Authorization": f"Bearer {person.secret}", "Accept": "application/json"},
                json=BODIES.get(name),
                buffered=True,
            )
            asked += 1
            if name != "POST /v1/auth/refresh" and (answer.status_code == 403) == expected(name, person):
                wrong.append((name, person.role, person.scopes, answer.status_code))
            assert answer.status_code < 500 or name == "GET /ready", (name, answer.text)
    assert not wrong
    assert asked > 4 * 20 * 40


def test_each_row_reaches_the_rows_it_says(world: World) -> None:
    """Of somebody else in the workspace: its operator; of another workspace: the service's own admins alone."""
    users, tokens = world.services.auth.users, world.services.auth.tokens
    root = users.create("root", PASSWORD, "admin")
    world.keys["root"] = tokens.begin(root).public()["access_token"]
    assert world.other is not None
    seen = 0
    for name, row in PERMISSIONS.items():
        arguments = re.findall(r"<(?:\w+:)?(\w+)>", name)
        if len(arguments) != 1 or arguments[0] not in OBJECTS:
            continue
        rule = name.partition(" ")[2]

        def status(asking: World, who: str, *, name: str = name, rule: str = rule, **_: Any) -> int:
            object_id = world.make(OBJECTS[re.findall(r"<(\w+)>", rule)[0]])
            return asking.ask(who, name, re.sub(r"<\w+>", object_id, rule)).status_code

        assert row.whose in ("own", "workspace"), name
        theirs = {who: status(world, who) not in (403, 404) for who in ("bob", "eve", "root")}
        everybodys = row.whose == "workspace"
        assert theirs == {"bob": False, "eve": everybodys, "root": everybodys}, name
        assert status(world.other, "eve") == 404 and status(world.other, "signed in") == 404, name
        if row.role == "user":
            assert status(world, "ada's key") != 404
        else:
            assert status(world, "ada's key") == 403, name
        seen += 1
    assert seen >= 9


def test_key_for_some_models_starts_agents_of_these_models_only(made: Flask) -> None:
    services, client = made.extensions["slipway"], made.test_client()
    user = services.auth.users.create("modeller", PASSWORD)
    models = services.agents.agents[AGENT].models
    for scopes, status in (
        (["models:*"], 202),
        ([f"models:{model}" for model in models], 202),
        (["models:claude-none-1"], 403),
        ([f"models:{models[0]}"], 202 if len(models) == 1 else 403),
    ):
        key = services.auth.keys.create(user.id, "k", scopes)["key"]
        answer = client.post(
            f"/v1/agents/{AGENT}/tasks", json={"input": "Hello"}, headers={"X-Api-Key": key}, buffered=True
        )
        assert answer.status_code == status, answer.text
        if status == 403:
            assert next(model for model in models if f"models:{model}" not in scopes) in answer.text


@pytest.mark.parametrize(
    "scope",
    (
        *("agents", "agents:A", "agents:a\n", "models:", "models:a*", "other:*"),
        *("tools:", "tools:all", "tools:re*", "tools:calculator"),
        *("actions:", "actions:runs", "actions:runs:rea*", "actions:none:read", "actions:keys:write"),
    ),
)
def test_scope_that_would_allow_nothing_is_none(scope: str) -> None:
    with pytest.raises(ValueError, match=r"must be|no action"):
        check_scope(scope)


def test_page_is_up_to_date() -> None:
    command = [sys.executable, "-m", "scripts.permissions_page"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert Path(ROOT / "docs" / "permissions.md").read_text() == printed


@pytest.mark.parametrize("scope", ["tools:read", "tools:write", "tools:danger", "tools:*"])
def test_scope_of_tools_is_a_risk_of_theirs(scope: str) -> None:
    assert check_scope(scope) == scope
