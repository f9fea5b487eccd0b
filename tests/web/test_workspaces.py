"""Workspaces over HTTP: made, listed, changed and deleted by an admin of the service."""

from __future__ import annotations

import secrets
from contextlib import closing

import httpx2

from tests.conftest import Slipway
from tests.web.people import PASSWORD, join

PATH = "/v1/admin/workspaces"


def add(client: httpx2.Client) -> dict[str, str]:
    answer = client.post(PATH, json={"name": f"w-{secrets.token_hex(4)}"})
    assert answer.status_code == 201, answer.text
    made: dict[str, str] = answer.json()
    return made


def test_made_listed_changed_and_deleted(client: httpx2.Client) -> None:
    made = add(client)
    path = f"{PATH}/{made['id']}"
    assert made["id"].startswith("wsp_")
    assert client.get(path).json() == made
    assert client.get(f"{PATH}?limit=1").json()["data"][0]["name"] == "default"
    assert made in client.get(f"{PATH}?limit=100").json()["data"]
    taken = client.post(PATH, json={"name": made["name"]})
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    assert client.post(PATH, json={"name": "No Name"}).json()["errors"][0]["pointer"] == "/name"
    renamed = f"{made['name']}.two"
    assert client.patch(path, json={"name": renamed, "disabled": True}).json() == {
        **made,
        "name": renamed,
        "disabled": True,
    }
    assert client.patch(path, json={}).status_code == 422
    assert client.delete(path).status_code == 204
    assert {client.get(path).status_code, client.delete(path).status_code} == {404}


def test_made_once_under_one_key(client: httpx2.Client) -> None:
    headers, body = {"Idempotency-Key": "one-workspace-only"}, {"name": "once-only"}
    first, second = (client.post(PATH, json=body, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"


def test_its_people_work_and_its_admin_ends_there(client: httpx2.Client, slipway: Slipway) -> None:
    made = add(client)
    body = {"username": "demo", "password": PASSWORD, "role": "admin", "workspace_id": made["id"]}
    user = client.post("/v1/admin/users", json=body)
    assert (user.status_code, user.json()["workspace_id"]) == (201, made["id"])
    assert client.delete(f"{PATH}/{made['id']}").status_code == 409, "it has users"
    body = {"username": "demo", "password": PASSWORD, "workspace": made["name"]}
    token = client.post("/v1/auth/login", json=body).json()["access_token"]
    with closing(httpx2.Client(base_url=slipway.url, headers={"Authorization": f"Bearer {token}"})) as admin:
        assert admin.get("/v1/auth/me").json()["workspace_id"] == made["id"]
        assert [each["username"] for each in admin.get("/v1/admin/users").json()["data"]] == ["demo"]
        run = admin.post("/v1/agents/assistant/invoke", json={"input": "Hello", "cache": "bypass"}).json()
        assert [each["run_id"] for each in admin.get("/v1/runs").json()["data"]] == [run["run_id"]]
        assert run["run_id"] in [each["run_id"] for each in client.get("/v1/runs").json()["data"]]
        refused = admin.get(PATH)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        with closing(join(slipway, client, "operator")) as operator:
            assert operator.get(f"/v1/runs/{run['run_id']}").status_code == 404
        cap = {"amount_usd": "0", "period": "day"}
        assert client.put(f"/v1/admin/budgets/workspace:{made['id']}", json=cap).status_code == 200
        over = admin.post("/v1/agents/assistant/invoke", json={"input": "Again", "cache": "bypass"})
        assert (over.status_code, over.json()["budget"]["scope"]) == (402, f"workspace:{made['id']}")
        client.patch(f"{PATH}/{made['id']}", json={"disabled": True})
        assert admin.get("/v1/auth/me").status_code == 401
