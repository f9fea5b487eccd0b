"""Caps over HTTP: set by admins, shown to callers, and met by calls."""

from __future__ import annotations

import httpx2
import pytest

from service.store.database import Database
from tests.conftest import Model
from tests.usage.bank import QUESTION, admin, bank, db, own_model, settlements, user

__all__ = ["admin", "bank", "db", "own_model", "user"]


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_over_the_cap_is_402_and_leaves_no_run(
    db: Database, own_model: Model, user: tuple[str, httpx2.Client], admin: httpx2.Client, door: str
) -> None:
    user_id, client = user
    put = admin.put(f"/v1/admin/budgets/user:{user_id}", json={"amount_usd": "0.000100", "period": "month"})
    assert put.status_code == 200 and put.json()["left_usd"] == "0.000100"
    refused = client.post(f"/v1/agents/assistant/{door}", json={**QUESTION, "tier": "complex"})
    assert refused.status_code == 402, refused.text
    problem = refused.json()
    assert problem["code"] == "budget_exceeded"
    assert problem["budget"]["scope"] == f"user:{user_id}" and problem["budget"]["period"] == "month"
    assert problem["budget"]["left_usd"] == "0.000100" and problem["budget"]["renews_at"].endswith(
        "01T00:00:00.000Z"
    )
    assert client.get("/v1/runs").json()["data"] == []
    assert own_model.stats()["calls"] == 0


def test_a_shorter_answer_is_said_to_be_one(
    db: Database, user: tuple[str, httpx2.Client], admin: httpx2.Client
) -> None:
    user_id, client = user
    question = {"input": "Write at length. " * 20, "cache": "bypass", "tier": "simple"}
    admin.put(f"/v1/admin/budgets/user:{user_id}", json={"amount_usd": "0.000300", "period": "day"})
    answer = client.post("/v1/agents/assistant/invoke", json=question)
    assert answer.status_code == 200, answer.text
    assert 64 <= answer.json()["max_tokens_clamped"] < 1_024
    assert float(answer.json()["usage"]["cost_usd"]) <= 0.0003
    budget = client.get("/v1/budget").json()["data"]
    [mine] = [state for state in budget if state["scope"] == f"user:{user_id}"]
    assert mine["spent_usd"] == answer.json()["usage"]["cost_usd"] and mine["reserved_usd"] == "0.000000"


def test_me_includes_the_budget_of_the_caller(
    db: Database, user: tuple[str, httpx2.Client], admin: httpx2.Client
) -> None:
    user_id, client = user
    admin.put(f"/v1/admin/budgets/user:{user_id}", json={"amount_usd": "2.00", "period": "month"})
    assert client.post("/v1/agents/assistant/invoke", json=QUESTION).status_code == 200
    mine = client.get("/v1/auth/me").json()["budget"]
    assert mine == client.get("/v1/budget").json()
    assert {(cap["scope"], cap["period"]) for cap in mine["data"]} == {
        (f"user:{user_id}", "day"),
        (f"user:{user_id}", "month"),
    }
    assert all(cap["spent_usd"] > "0.000000" for cap in mine["data"])
    assert "service" in [cap["scope"] for cap in admin.get("/v1/auth/me").json()["budget"]["data"]]
    key = client.post("/v1/auth/keys", json={"name": "budget"}).json()
    admin.put(f"/v1/admin/budgets/key:{key['id']}", json={"amount_usd": "1.00", "period": "day"})
    by_key = client.get("/v1/auth/me", headers={"Authorization": f"Bearer {key['key']}"}).json()["budget"]
    assert f"key:{key['id']}" in [cap["scope"] for cap in by_key["data"]]


def test_run_stopped_by_a_cap_keeps_its_finished_steps(
    db: Database, user: tuple[str, httpx2.Client], admin: httpx2.Client
) -> None:
    """The first step fits, the second does not: a failed run, with the first step kept and paid."""
    user_id, client = user
    admin.put(f"/v1/admin/budgets/user:{user_id}", json={"amount_usd": "0.000700", "period": "day"})
    question = {"input": "What does the Team plan cost? " + "Think of everything. " * 60, "cache": "bypass"}
    answer = client.post("/v1/agents/support/invoke", json={**question, "tier": "medium"})
    assert answer.status_code == 402, answer.text
    [run] = client.get("/v1/runs").json()["data"]
    assert run["status"] == "failed" and run["error"]["code"] == "budget_exceeded"
    shown = client.get(f"/v1/runs/{run['run_id']}").json()
    assert [step["name"] for step in shown["step_list"]] == ["classify"]
    [row] = settlements(db, user_id)
    assert row["basis"] == "exact" and run["usage"]["cost_usd"] == shown["step_list"][0]["cost_usd"]


def test_caps_are_the_admins(db: Database, user: tuple[str, httpx2.Client], admin: httpx2.Client) -> None:
    client = user[1]
    cap = {"amount_usd": "5.00", "period": "total"}
    assert client.put("/v1/admin/budgets/service", json=cap).status_code == 403
    assert client.get("/v1/admin/budgets").status_code == 403
    nobody = (f"{kind}_{'0' * 26}" for kind in ("user:usr", "key:key", "session:ses"))
    for scope in ("nobody", "user:usr_x", *nobody, "agent:nobody", "service:x"):
        assert admin.put(f"/v1/admin/budgets/{scope}", json=cap).status_code == 404, scope
    for wrong in (
        {},
        {**cap, "amount_usd": "-1"},
        {**cap, "amount_usd": 5},
        {**cap, "amount_usd": "١٢"},
        {**cap, "amount_usd": "9e999999"},
        {**cap, "period": "year"},
    ):
        assert admin.put("/v1/admin/budgets/service", json=wrong).status_code == 422, wrong
    assert admin.put("/v1/admin/budgets/agent:support", json=cap).json()["renews_at"] is None
    lifted = admin.put("/v1/admin/budgets/agent:support", json={**cap, "amount_usd": None}).json()
    assert lifted["amount_usd"] is None and lifted["left_usd"] is None
    first = admin.get("/v1/admin/budgets", params={"limit": 1}).json()
    assert first["data"][0]["id"] == first["next_cursor"]
    rest = admin.get("/v1/admin/budgets", params={"cursor": first["next_cursor"]}).json()
    assert first["data"][0]["id"] not in [state["id"] for state in rest["data"]]
