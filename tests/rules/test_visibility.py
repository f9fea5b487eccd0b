"""Visibility of objects at every route, by role and scope, new routes included."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from service.ids import new_id
from tests.rules.test_routes import routes
from tests.rules.world import AGENT, BODIES, OTHER, World, told, world
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url", "world"]
OBJECTS = {
    "run_id": "run",
    "session_id": "ses",
    "approval_id": "apr",
    "schedule_id": "sch",
    "response_id": "resp",
}
# Ids of another kind: no object of an agent's, and for whoever is named here.
ELSEWHERE = {
    "agent": "test_an_agent_out_of_scope_is_not_there",
    "key_id": "a signed-in user's own",
    "user_id": "admins alone",
    "document_id": "operators and admins alone",
    "scope": "admins alone",
    "workspace_id": "admins of the service alone",
    "name": "everybody",
}
# Where an operator changes nothing, although they see everybody's objects elsewhere.
THE_OWNERS = {
    "PATCH /v1/sessions/<session_id>",
    "DELETE /v1/sessions/<session_id>",
    "POST /v1/runs/<run_id>/feedback",
    "PATCH /v1/schedules/<schedule_id>",
    "DELETE /v1/schedules/<schedule_id>",
    "GET /v1/responses/<response_id>",
    "DELETE /v1/responses/<response_id>",
    "POST /v1/responses/<response_id>/cancel",
    "GET /v1/responses/<response_id>/input_items",
}
OWN = ("ada's key", "in scope", "by prefix", "every agent", "signed in")
STRANGERS = ("out of scope", "longer name", "bob", "bob in scope", "eve in scope")


def with_an_object(app: Flask) -> Iterator[tuple[str, str]]:
    """Routes with an object's id in their path, as `METHOD /rule`, and the name of that id."""
    for name, view in sorted(routes(app), key=lambda route: route[0]):
        names = set(re.findall(r"<(?:\w+:)?(\w+)>", name))
        assert names <= OBJECTS.keys() | ELSEWHERE.keys(), f"{name}: whose is that?"
        for argument in names & OBJECTS.keys():
            assert view.__api__.body is None or name in BODIES, f"{name}: add a body"
            yield name, argument


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
        assert world.other is not None
        for who in world.other.keys:  # also operators and admins
            answer = world.other.ask(who, name, path(object_id))
            assert answer.status_code == 404, (name, who, answer.text)
            unknown = world.other.ask(who, name, path(nothing))
            assert told(answer, object_id) == told(unknown, nothing), (name, who)
        answer = world.ask("eve", name, path(object_id))
        assert (answer.status_code in (403, 404)) == (name in THE_OWNERS), (name, answer.text)
        for who in OWN:
            answer = world.ask(who, name, path(world.make(kind)))
            assert answer.status_code != 404, (name, who, answer.text)


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
