"""Scopes of keys: lists, usage, sessions and cached answers within them."""

from __future__ import annotations

import pytest

from tests.rules.world import AGENT, OTHER, World, world
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url", "world"]


@pytest.mark.parametrize(
    "path", ["/v1/runs", "/v1/sessions", "/v1/schedules", "/v1/approvals", "/v1/approvals?status=pending"]
)
def test_lists_are_filtered_before_they_are_cut_into_pages(world: World, path: str) -> None:
    kind = {"/v1/sessions": "ses", "/v1/schedules": "sch"}.get(path, "run")
    key = "run_id" if path == "/v1/runs" else "id"
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
