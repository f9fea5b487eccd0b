"""Whose objects each route shows and changes, by role and by scope: also the route that is added tomorrow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask import Flask
from werkzeug.test import TestResponse

from service.auth.users import User
from service.store import approvals, schema
from service.store import runs as run_rows
from service.store import sessions as session_rows
from service.types import Caller, Run, RunRequest, new_id, now_ms
from service.wiring import Services
from tests.made import app_in, close
from tests.rules.test_routes import routes
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
PASSWORD = "a-password-of-some-length"
AGENT, OTHER = "support", "analyst"
OBJECTS = {"run_id": "run", "session_id": "ses", "approval_id": "apr"}
# Ids of another kind: no object of an agent's, and for whoever is named here.
ELSEWHERE = {
    "agent": "test_an_agent_out_of_scope_is_not_there",
    "key_id": "a signed-in user's own",
    "user_id": "admins alone",
    "scope": "admins alone",
    "name": "everybody",
}
BODIES: dict[str, dict[str, Any]] = {
    "PATCH /v1/sessions/<session_id>": {"title": "New"},
    "POST /v1/approvals/<approval_id>": {"decision": "deny"},
    "POST /v1/runs/<run_id>/feedback": {"score": 1},
    "POST /v1/runs/<run_id>/fork": {"from_step": 1},
}
# Where an operator sees everybody's objects and changes none of them.
THE_OWNERS = {
    "PATCH /v1/sessions/<session_id>",
    "DELETE /v1/sessions/<session_id>",
    "POST /v1/runs/<run_id>/feedback",
    "POST /v1/runs/<run_id>/fork",
}
OWN = ("ada's key", "in scope", "by prefix", "every agent", "signed in")
STRANGERS = ("out of scope", "longer name", "bob", "bob in scope", "eve in scope")


@dataclass
class World:
    """Ada's objects of two agents, and keys of hers, of Bob's and of Eve's, who is an operator."""

    app: Flask
    ada: User
    keys: dict[str, str]

    @property
    def services(self) -> Services:
        found: Services = self.app.extensions["slipway"]
        return found

    def ask(self, who: str, name: str, path: str, **more: Any) -> TestResponse:
        """Call a route, given as `METHOD /rule`, at `path`."""
        body = BODIES.get(name)
        headers = {"Authorization": f"Bearer {self.keys[who]}", "Accept": "application/json"}
        headers |= more.pop("headers", {})
        method = name.partition(" ")[0]
        return self.app.test_client().open(
            path, method=method, headers=headers, json=body, buffered=True, **more
        )

    def get(self, who: str, path: str) -> Any:
        answer = self.ask(who, "GET", path)
        assert answer.status_code == 200, answer.text
        return answer.json

    def pages(self, who: str, path: str) -> list[dict[str, Any]]:
        """Every item of a list, by pages of two; each but the last is full."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            sign = "&" if "?" in path else "?"
            body = self.get(who, f"{path}{sign}limit=2{cursor}")
            found += body["data"]
            if body["next_cursor"] is None:
                return found
            assert len(body["data"]) == 2
            cursor = f"&cursor={body['next_cursor']}"

    def make(self, kind: str, agent: str = AGENT, user_id: str | None = None) -> str:
        """A new object of Ada's; its id."""
        made = {"run": self.run, "ses": self.session, "apr": self.approval}[kind]
        return made(agent, user_id or self.ada.id)

    def session(self, agent: str, user_id: str) -> str:
        row = self.services.sessions.new(Caller(user_id, "x", "user"), agent, "", None)
        self.services.infra.db.transact(lambda tx: session_rows.insert(tx, row))
        return str(row["id"])

    def run(self, agent: str, user_id: str) -> str:
        """One that waits for a person, about two calls: a decision about one of them sets nothing going."""
        request = RunRequest(agent, ({"role": "user", "content": "Do it."},))
        run = Run(new_id("run"), user_id, agent, "1", "task", request, attempt=1)
        asked = {"run_id": run.id, "user_id": user_id, "agent": agent, "name": "write", "reason": "policy"}
        calls = [{**asked, "id": new_id("apr"), "call_id": f"c{n}", "arguments": {}} for n in (1, 2)]

        def work(tx: Any) -> None:
            run_rows.insert(tx, run, worker_id="wrk")
            run_rows.suspend(tx, run, 1)
            approvals.ask(tx, calls)

        self.services.infra.db.transact(work)
        return run.id

    def approval(self, agent: str, user_id: str) -> str:
        run_id = self.run(agent, user_id)
        first = self.services.infra.db.query(lambda tx: approvals.of_run(tx, run_id))[0]
        return str(first["id"])

    def spend(self, agent: str, user_id: str, cost: int) -> None:
        """A settled call on the books."""
        row = dict.fromkeys((column.name for column in schema.ledger.columns), None)
        row |= {"entry_id": new_id("hold"), "kind": "settle", "account": "upstream", "amount_nano": cost}
        row |= {"at": now_ms(), "called_at": now_ms(), "user_id": user_id, "agent": agent, "model": "m"}
        self.services.infra.db.transact(lambda tx: tx.execute(sa.insert(schema.ledger), row))


@pytest.fixture
def world(tmp_path: Path, url: str) -> Iterator[World]:
    app = app_in(tmp_path, DATABASE_URL=url)
    services: Services = app.extensions["slipway"]
    ada = services.auth.users.create("ada", PASSWORD)
    bob = services.auth.users.create("bob", PASSWORD)
    eve = services.auth.users.create("eve", PASSWORD, "operator")
    wanted: dict[str, tuple[User, tuple[str, ...]]] = {
        "ada's key": (ada, ()),
        "in scope": (ada, (f"agents:{AGENT}",)),
        "by prefix": (ada, ("agents:none", f"agents:{AGENT[:3]}*")),
        "every agent": (ada, ("agents:*",)),
        "out of scope": (ada, (f"agents:{OTHER}",)),
        "longer name": (ada, (f"agents:{AGENT}-two",)),
        "bob": (bob, ()),
        "bob in scope": (bob, (f"agents:{AGENT}",)),
        "eve": (eve, ()),
        "eve in scope": (eve, (f"agents:{AGENT}",)),
    }
    keys = {
        name: services.auth.keys.create(user.id, "k", scopes)["key"]
        for name, (user, scopes) in wanted.items()
    }
    keys["signed in"] = services.auth.tokens.begin(ada).public()["access_token"]
    yield World(app, ada, keys)
    close(app)


def with_an_object(app: Flask) -> Iterator[tuple[str, str]]:
    """Routes with an object's id in their path, as `METHOD /rule`, and the name of that id."""
    for name, view in sorted(routes(app), key=lambda route: route[0]):
        names = set(re.findall(r"<(?:\w+:)?(\w+)>", name))
        assert names <= OBJECTS.keys() | ELSEWHERE.keys(), f"{name}: whose is that?"
        for argument in names & OBJECTS.keys():
            assert view.__api__.body is None or name in BODIES, f"{name}: add a body"
            yield name, argument


def told(answer: TestResponse, object_id: str) -> Any:
    """A problem without what differs from request to request."""
    told = re.sub(object_id, "ID", answer.text)
    return answer.status_code, re.sub(r'"request_id":"\w+"', "", told)


def test_objects_are_visible_to_permitted_callers_only(world: World) -> None:
    found = list(with_an_object(world.app))
    assert len(found) >= 7
    for name, argument in found:
        rule = name.partition(" ")[2]

        def path(object_id: str, rule: str = rule, argument: str = argument) -> str:
            return rule.replace(f"<{argument}>", object_id)

        kind = OBJECTS[argument]
        object_id, nothing = world.make(kind), new_id(kind)
        for who in STRANGERS:
            answer = world.ask(who, name, path(object_id))
            assert answer.status_code == 404, (name, who, answer.text)
            assert told(answer, object_id) == told(world.ask(who, name, path(nothing)), nothing), (name, who)
        answer = world.ask("eve", name, path(object_id))
        assert (answer.status_code in (403, 404)) == (name in THE_OWNERS), (name, answer.text)
        for who in OWN:
            answer = world.ask(who, name, path(world.make(kind)))
            assert answer.status_code != 404, (name, who, answer.text)


@pytest.mark.parametrize(
    "path", ["/v1/runs", "/v1/sessions", "/v1/approvals", "/v1/approvals?status=pending"]
)
def test_lists_are_filtered_before_they_are_cut_into_pages(world: World, path: str) -> None:
    kind, key = ("run", "run_id") if path == "/v1/runs" else ("ses" if "sessions" in path else "run", "id")
    for _ in range(5):
        world.make(kind, AGENT)
        for _ in range(3):
            world.make(kind, OTHER)
        world.make(kind, AGENT, world.services.auth.users.by_name("bob").id)
    listed = {who: world.pages(who, path) for who in world.keys}
    each = 10 if "approvals" in path else 5
    for who, agents in {
        "ada's key": {AGENT: each, OTHER: 3 * each},
        "every agent": {AGENT: each, OTHER: 3 * each},
        "in scope": {AGENT: each},
        "by prefix": {AGENT: each},
        "out of scope": {OTHER: 3 * each},
        "longer name": {},
        "bob in scope": {AGENT: each},
        "eve in scope": {},
    }.items():
        items = listed[who]
        counted = {item["agent"]: sum(other["agent"] == item["agent"] for other in items) for item in items}
        assert counted == agents, who
        assert [item[key] for item in items] == sorted((item[key] for item in items), reverse=True)


def test_a_filter_of_a_list_opens_nothing(world: World) -> None:
    session_id = world.make("ses", OTHER)
    world.make("run", OTHER)
    assert world.pages("out of scope", f"/v1/runs?agent={OTHER}")
    for query in (f"agent={OTHER}", "status=waiting_approval", f"session_id={session_id}"):
        assert world.pages("in scope", f"/v1/runs?{query}") == []
    for who, status in (("in scope", 403), ("eve in scope", 403), ("eve", 200)):
        assert world.ask(who, "GET", "/v1/sessions?scope=all").status_code == status


def test_usage_is_that_of_the_scope_in_its_lines_and_its_total(world: World) -> None:
    world.spend(AGENT, world.ada.id, 1_000_000)
    world.spend(OTHER, world.ada.id, 20_000_000)
    world.spend(AGENT, world.services.auth.users.by_name("bob").id, 300_000_000)
    for who, total in {
        "ada's key": "0.021000",
        "in scope": "0.001000",
        "by prefix": "0.001000",
        "out of scope": "0.020000",
        "longer name": "0.000000",
        "bob in scope": "0.300000",
        "eve": "0.321000",
        "eve in scope": "0.000000",
    }.items():
        report = world.get(who, "/v1/usage?group_by=agent,user")
        assert report["total"]["cost_usd"] == total, who
        lines = sum(float(line["cost_usd"]) for line in report["data"])
        assert f"{lines:.6f}" == total, who
        text = world.ask(who, "GET", "/v1/usage?group_by=agent", headers={"Accept": "text/csv"}).text
        assert (OTHER in text) == (who in ("ada's key", "out of scope", "eve")), who


def test_scoped_key_sees_its_own_cap_only(world: World) -> None:
    budgets = world.services.usage.budgets
    budgets.put(f"user:{world.ada.id}", "month", 10**9)
    [key] = world.get("in scope", "/v1/auth/keys")["data"]
    budgets.put(f"key:{key['id']}", "day", 10**9)
    for path in ("/v1/budget", "/v1/auth/me"):
        told = {who: world.get(who, path) for who in ("ada's key", "in scope", "out of scope")}
        scopes = {
            who: {cap["scope"] for cap in (body.get("budget") or body)["data"]} for who, body in told.items()
        }
        assert scopes["in scope"] == {f"key:{key['id']}"}
        assert scopes["out of scope"] == set()
        assert f"user:{world.ada.id}" in scopes["ada's key"]


def test_a_key_with_scopes_sees_itself_and_makes_and_ends_none(world: World) -> None:
    assert len(world.pages("signed in", "/v1/auth/keys")) == 6
    assert len(world.pages("ada's key", "/v1/auth/keys")) == 6
    [itself] = world.pages("in scope", "/v1/auth/keys")
    assert itself["scopes"] == [f"agents:{AGENT}"]
    for scopes in ([], ["agents:*"], [f"agents:{AGENT}"]):
        answer = world.app.test_client().post(
            "/v1/auth/keys",
            json={"name": "wider", "scopes": scopes},
            headers={"X-Api-Key": world.keys["in scope"]},
        )
        assert answer.status_code == 403
    for path in (f"/v1/auth/keys/{itself['id']}", "/v1/auth/keys/key_none"):
        assert world.ask("in scope", "DELETE", path).status_code == 403


def test_an_agent_out_of_scope_is_not_there(world: World) -> None:
    """At every route with an agent in its path."""
    client = world.app.test_client()
    for name, _ in routes(world.app):
        method, path = name.split(" ")
        if "<agent>" not in path or "/admin/" in path:
            continue
        answers = [
            client.open(
                path.replace("<agent>", agent),
                method=method,
                json={"input": "Hello"} if method == "POST" else None,
                headers={"X-Api-Key": world.keys["out of scope"]},
                buffered=True,
            )
            for agent in (AGENT, "nobody")
        ]
        assert [answer.status_code for answer in answers] == [404, 404], (name, answers[0].text)
        assert told(answers[0], AGENT) == told(answers[1], "nobody"), name
    assert [agent["id"] for agent in world.get("out of scope", "/v1/agents")["data"]] == [OTHER]


def test_a_session_out_of_scope_takes_no_turn_and_is_not_named(world: World) -> None:
    other, own = world.make("ses", OTHER), world.make("ses", AGENT)

    def turn(who: str, session_id: str, door: str = "tasks") -> TestResponse:
        return world.app.test_client().post(
            f"/v1/agents/{AGENT}/{door}",
            json={"input": "Hello", "session_id": session_id},
            headers={"Authorization": f"Bearer {world.keys[who]}"},
            buffered=True,
        )

    nothing = new_id("ses")
    for door in ("tasks", "invoke", "stream"):
        refused = turn("in scope", other, door)
        assert told(refused, other) == told(turn("in scope", nothing, door), nothing)
        assert (refused.status_code, OTHER in refused.text) == (404, False)
    assert turn("ada's key", other).status_code == 422  # one's own, of another agent
    assert turn("in scope", own).status_code == 202
    for who, agent, status in (("in scope", AGENT, 201), ("in scope", OTHER, 422), ("ada's key", OTHER, 201)):
        answer = world.app.test_client().post(
            "/v1/sessions", json={"agent": agent}, headers={"X-Api-Key": world.keys[who]}
        )
        assert answer.status_code == status, answer.text


@pytest.mark.parametrize(
    ("name", "first"),
    [("POST /v1/approvals/<approval_id>", "eve"), ("POST /v1/runs/<run_id>/cancel", "ada's key")],
)
def test_an_answer_kept_for_a_wide_key_is_not_given_to_a_narrow_one(
    world: World, name: str, first: str
) -> None:
    """Under the same `Idempotency-Key`: of one's own user too, and of an operator who is none any more."""
    argument = "approval_id" if "approval_id" in name else "run_id"
    object_id = world.make(OBJECTS[argument])
    path = name.split(" ")[1].replace(f"<{argument}>", object_id)
    again = {"Idempotency-Key": new_id("try")}
    answers = [world.ask(first, name, path, headers=again) for _ in range(2)]
    assert [answer.status_code // 100 for answer in answers] == [2, 2]
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    for who in STRANGERS:
        answer = world.ask(who, name, path, headers=again)
        assert answer.status_code == 404, (who, answer.text)
    if first == "eve":
        services = world.services
        services.auth.users.change(services.auth.users.by_name("eve").id, role="user")
        assert world.ask("eve", name, path, headers=again).status_code == 404
