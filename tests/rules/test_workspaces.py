"""Workspaces: nothing of one crosses to another, at any route, for any role, whatever is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from werkzeug.test import TestResponse

from service.ids import new_id
from service.store import feedback
from service.types import DEFAULT_WORKSPACE, now_ms, usd
from tests.rules.test_actors import REQUESTS
from tests.rules.test_routes import routes
from tests.rules.world import AGENT, BODIES, World, world
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url", "world"]
AMOUNTS = {
    True: (123_456_000, 987_654_000),
    False: (345_678_000, 765_432_000),
}  # of `default`: spent, and a cap


class Things(NamedTuple):
    """What there is in a workspace, by the arguments of routes, and the words that nobody elsewhere may read."""

    arguments: dict[str, list[str]]
    words: list[str]


def things_of(world: World) -> Things:
    services, ada = world.services, world.ada
    run_id, session_id, approval_id, schedule_id = map(world.make, ("run", "ses", "apr", "sch"))
    services.infra.db.transact(lambda tx: feedback.give(tx, run_id, 1, f"{world.word} feedback", now_ms()))
    key_id = services.auth.keys.create(ada.id, f"{world.word} key")["id"]
    spent, cap = AMOUNTS[ada.workspace_id == DEFAULT_WORKSPACE]
    world.spend(AGENT, ada.id, spent)
    scopes = [f"user:{ada.id}", f"key:{key_id}", f"session:{session_id}", f"workspace:{ada.workspace_id}"]
    scopes.append(f"end_user:{key_id}/guest / 7")
    for scope in scopes:
        services.usage.budgets.put(scope, "month", cap)
    arguments = {
        "run_id": [run_id],
        "response_id": [world.make("resp")],
        "session_id": [session_id],
        "approval_id": [approval_id],
        "schedule_id": [schedule_id],
        "document_id": [world.make("doc")],
        "key_id": [key_id],
        "user_id": [ada.id],
        "workspace_id": [ada.workspace_id],
        "scope": scopes,
    }
    ids = [value for name in arguments if name != "scope" for value in arguments[name]]
    return Things(arguments, [world.word, usd(spent), usd(cap), *ids])


def paths(rule: str, things: Things) -> Iterator[str]:
    """Path of a route for each thing that it may be asked about."""
    name, *others = re.findall(r"<(?:\w+:)?(\w+)>", rule) or [""]
    for other in others:
        rule = rule.replace(f"<{other}>", things.arguments[other][0])
    known = {**things.arguments, "agent": [AGENT], "name": ["app.js"], "": [""]}[name]
    for value in known:
        yield re.sub(r"<[^>]+>", value, rule)


def queries(view: Any, things: Things) -> Iterator[dict[str, str]]:
    """No filter, and each filter for a thing there."""
    values = {
        "session_id": things.arguments["session_id"][0],
        "schedule": things.arguments["schedule_id"][0],
        "workspace": things.arguments["workspace_id"][0],
        "agent": AGENT,
        "scope": things.arguments["scope"][0] if "budget" in view.__name__ else "all",
        "q": things.words[0],
        "group_by": "user,key,workspace",
        "status": "pending" if "approval" in view.__name__ else "waiting_approval",
    }
    yield {}
    yield from ({name: values[name]} for name in view.__api__.query if name in values)


def without(answer: TestResponse, *asked: str) -> str:
    """Everything that an answer says, but for what its request named."""
    text = f"{answer.headers} {answer.text}"
    for value in asked:
        text = text.replace(value, "")
    return text


def test_no_word_of_a_workspace_crosses(world: World) -> None:
    """Of each to the other: neither its texts nor its ids, in answers of any status."""
    assert world.other is not None
    mine, other = world, world.other
    mine.word = "the word of default"
    asked = 0
    for here, there, callers in (
        (mine, other, ("ada's key", "in scope", "eve")),
        (other, mine, tuple(other.keys)),
    ):
        things = things_of(there)
        # The audit first: refusals of this very test are in it, with the ids that they asked for.
        for name, view in sorted(routes(here.app), key=lambda route: "audit" not in route[0]):
            method, rule = name.split(" ")
            has_object = bool({*re.findall(r"<(?:\w+:)?(\w+)>", rule)} & things.arguments.keys())
            if method != "GET" and not has_object:
                continue  # makes something of the caller's own
            for who in callers:
                for path in paths(rule, things):
                    for query in queries(view, things) if method == "GET" else ({},):
                        body = REQUESTS.get(name, BODIES.get(name))
                        answer = here.app.test_client().open(
                            path,
                            method=method,
                            json=body if method != "GET" else None,
                            query_string=query,
                            headers={"Authorization": f"Bearer {here.keys[who]}"},
                            buffered=True,
                        )
                        said = without(answer, *re.split("[/:]", path), *query.values())
                        found = [word for word in things.words if word in said]
                        assert not found, (name, who, query, found, answer.text)
                        if has_object:
                            assert answer.status_code in (403, 404), (name, who, answer.text)
                        asked += 1
        # Nothing has been changed, decided, ended or deleted meanwhile.
        owner = "ada" if there is other else "ada's key"
        for path in (
            "runs/" + things.arguments["run_id"][0],
            "sessions/" + things.arguments["session_id"][0],
        ):
            there.get(owner, f"/v1/{path}")
        approvals = there.get(owner, "/v1/approvals?status=pending")["data"]
        assert things.arguments["approval_id"][0] in [each["id"] for each in approvals]
        assert there.services.auth.users.get(there.ada.id).role == "user"
    assert asked > 300


def test_own_workspace_is_seen_whole(world: World) -> None:
    """The test above would pass if operators saw nothing."""
    assert world.other is not None
    for here, operator, admin in ((world, "eve", None), (world.other, "eve", "root")):
        things = things_of(here)
        run_id = things.arguments["run_id"][0]
        assert run_id in [each["run_id"] for each in here.pages(operator, "/v1/runs")]
        assert here.pages(operator, "/v1/sessions?scope=all")
        assert here.pages(operator, "/v1/approvals?status=pending")
        assert here.get(operator, "/v1/usage")["total"]["cost_usd"] == things.words[1]
        [line] = here.get(operator, "/v1/usage?group_by=workspace")["data"]
        assert line["workspace"] == here.ada.workspace_id
        caps = {cap["scope"] for cap in here.get(operator, "/v1/budget")["data"]}
        assert f"workspace:{here.ada.workspace_id}" in caps
        if admin is not None:
            names = [each["username"] for each in here.pages(admin, "/v1/admin/users")]
            assert names == ["ada", "eve", "root"]
            scopes = {cap["scope"] for cap in here.pages(admin, "/v1/admin/budgets")}
            assert scopes == set(things.arguments["scope"])


def test_admin_of_the_service_sees_all(world: World) -> None:
    assert world.other is not None
    both = [things_of(each) for each in (world, world.other)]
    demo = world.services.auth.users.by_name("demo")
    assert demo is not None
    world.keys["demo"] = world.services.auth.keys.create(demo.id, "k")["key"]
    runs = {each["run_id"] for each in world.pages("demo", "/v1/runs")}
    assert {things.arguments["run_id"][0] for things in both} <= runs
    of_users = [each["workspace_id"] for each in world.pages("demo", "/v1/admin/users")]
    assert set(of_users) == {world.ada.workspace_id, world.other.ada.workspace_id}
    report = world.get("demo", "/v1/usage?group_by=workspace")
    spent = {things.arguments["workspace_id"][0]: things.words[1] for things in both}
    assert {line["workspace"]: line["cost_usd"] for line in report["data"]} == spent
    one = f"?workspace={world.other.ada.workspace_id}"
    assert len(world.pages("demo", f"/v1/admin/users{one}")) == 3
    assert {cap["scope"] for cap in world.pages("demo", f"/v1/admin/budgets{one}")} == set(
        both[1].arguments["scope"]
    )


def test_a_workspace_admin_gives_no_rights_elsewhere(world: World) -> None:
    """Nor caps that others share, by the same answer for what exists and what does not."""
    assert world.other is not None
    client, headers = world.app.test_client(), {"Authorization": f"Bearer {world.other.keys['root']}"}

    def create(workspace_id: str | None) -> TestResponse:
        body = {"username": new_id("u"), "password": "a-password", "workspace_id": workspace_id}
        return client.post("/v1/admin/users", json=body, headers=headers, buffered=True)

    own, default, none = world.other.ada.workspace_id, world.ada.workspace_id, new_id("wsp")
    assert [create(each).status_code for each in (None, own, default, none)] == [201, 201, 404, 404]
    assert create(default).get_json()["detail"].replace(default, "ID") == create(none).get_json()[
        "detail"
    ].replace(none, "ID")
    for scope in (
        "service",
        f"agent:{AGENT}",
        f"workspace:{own}",
        f"workspace:{default}",
        f"workspace:{none}",
    ):
        for amount in ("1", None):
            body = {"amount_usd": amount, "period": "day"}
            answer = client.put(f"/v1/admin/budgets/{scope}", json=body, headers=headers, buffered=True)
            assert answer.status_code == 403, (scope, answer.text)
    for path in ("/v1/admin/workspaces", f"/v1/admin/workspaces/{own}"):
        assert client.get(path, headers=headers, buffered=True).status_code == 403
