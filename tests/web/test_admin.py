"""Users, as the admin keeps them."""

from __future__ import annotations

from contextlib import closing

import httpx2

from tests.conftest import Slipway
from tests.web.people import PASSWORD, join


def test_made_listed_changed_and_deleted(client: httpx2.Client, slipway: Slipway) -> None:
    body = {"username": "grace", "password": PASSWORD, "role": "operator", "limit_runs": "5/minute"}
    made = client.post("/v1/admin/users", json=body)
    assert made.status_code == 201
    user = made.json()
    assert (user["username"], user["role"], user["limit_runs"]) == ("grace", "operator", "5/minute")
    assert "password" not in made.text
    taken = client.post("/v1/admin/users", json=body)
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    path = f"/v1/admin/users/{user['id']}"
    with closing(slipway.client("grace", PASSWORD)) as grace:
        changed = client.patch(path, json={"role": "user", "limit_runs": ""})
        assert (changed.json()["role"], changed.json()["limit_runs"]) == ("user", None)
        assert grace.get("/v1/auth/me").status_code == 401, "what she may is in her token: it has ended"
    assert client.patch(path, json={"disabled": True}).json()["disabled"] is True
    refused = client.post("/v1/auth/login", json={"username": "grace", "password": PASSWORD})
    assert refused.status_code == 401
    assert client.delete(path).status_code == 204
    assert client.delete(path).status_code == client.patch(path, json={"role": "user"}).status_code == 404


def test_pages_of_users(client: httpx2.Client, slipway: Slipway) -> None:
    join(slipway, client).close()
    first = client.get("/v1/admin/users?limit=1").json()
    assert first["data"][0]["username"] == "demo"
    assert client.get(f"/v1/admin/users?limit=1&cursor={first['next_cursor']}").json()["data"]


def test_invalid_user_fields_are_refused(client: httpx2.Client) -> None:
    right = {"username": "heidi", "password": PASSWORD, "role": "user"}
    for wrong in (
        {"password": "short"},
        {"role": "king"},
        {"username": "no spaces"},
        {"limit_runs": "often"},
    ):
        answer = client.post("/v1/admin/users", json={**right, **wrong})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/{next(iter(wrong))}")


def test_made_once_under_one_key(client: httpx2.Client) -> None:
    headers = {"Idempotency-Key": "one-user-only"}
    body = {"username": "ivan", "password": PASSWORD, "role": "user"}
    first, second = (client.post("/v1/admin/users", json=body, headers=headers) for _ in range(2))
    assert first.json() == second.json()
    assert second.headers["Idempotency-Replayed"] == "true"
    other = client.post("/v1/admin/users", json={**body, "role": "admin"}, headers=headers)
    assert other.json()["code"] == "idempotency_mismatch"


def test_only_admins(client: httpx2.Client, slipway: Slipway) -> None:
    for role in ("user", "operator"):
        with closing(join(slipway, client, role)) as other:
            assert other.get("/v1/admin/users").status_code == 403
            assert other.post("/v1/admin/users", json={}).status_code == 403
            assert other.patch("/v1/admin/users/usr_1", json={}).status_code == 403
            assert other.delete("/v1/admin/users/usr_1").status_code == 403
    key = client.post("/v1/auth/keys", json={"name": "narrow", "scopes": ["agents:support"]}).json()["key"]
    narrow = httpx2.get(
        f"{slipway.url}/v1/admin/users", headers={"x-api-key": key}, timeout=30, trust_env=False
    )
    assert narrow.status_code == 403


def test_an_admin_is_always_left(client: httpx2.Client) -> None:
    me = client.get("/v1/auth/me").json()["id"]
    for change in ({"role": "user"}, {"disabled": True}):
        assert client.patch(f"/v1/admin/users/{me}", json=change).status_code == 409
    assert client.delete(f"/v1/admin/users/{me}").status_code == 409


def test_one_user_their_keys_and_their_log_ins(client: httpx2.Client, slipway: Slipway) -> None:
    body = {"username": "judy", "password": PASSWORD}
    path = f"/v1/admin/users/{client.post('/v1/admin/users', json=body).json()['id']}"
    found = client.get("/v1/admin/users?username=judy").json()["data"]
    assert found == [client.get(path).json()] and found[0]["username"] == "judy"
    assert client.get("/v1/admin/users?username=nobody").json()["data"] == []
    with closing(slipway.client("judy", PASSWORD)) as judy:
        key = judy.post("/v1/auth/keys", json={"name": "mine"}).json()
        [listed] = client.get(f"{path}/keys").json()["data"]
        assert listed["id"] == key["id"] and "key" not in listed
        assert client.delete(f"{path}/logins").status_code == 204
        assert judy.get("/v1/auth/me").status_code == 401
        with_key = {"Authorization": f"Bearer {key['key']}"}
        assert judy.get("/v1/auth/me", headers=with_key).status_code == 200, "keys stay"
        assert client.delete(f"{path}/keys/{key['id']}").status_code == 204
        assert judy.get("/v1/auth/me", headers=with_key).status_code == 401
    slipway.client("judy", PASSWORD).close()
    other = client.get("/v1/auth/me").json()["id"]
    assert client.delete(f"/v1/admin/users/{other}/keys/{key['id']}").status_code == 404
    client.delete(path)
    for method, gone in (("GET", path), ("GET", f"{path}/keys"), ("DELETE", f"{path}/logins")):
        assert client.request(method, gone).status_code == 404


def test_last_admin_of_a_workspace_stays(client: httpx2.Client) -> None:
    there = {"workspace_id": client.post("/v1/admin/workspaces", json={"name": "lone"}).json()["id"]}

    def add(name: str, role: str) -> str:
        body = {"username": name, "password": PASSWORD, "role": role, **there}
        return f"/v1/admin/users/{client.post('/v1/admin/users', json=body).json()['id']}"

    first, plain = add("first", "admin"), add("plain", "user")
    for change in ({"role": "user"}, {"disabled": True}):
        refused = client.patch(first, json=change)
        assert (refused.status_code, refused.json()["code"]) == (409, "conflict")
    assert client.delete(first).status_code == 409
    second = add("second", "admin")
    assert client.patch(first, json={"disabled": True}).status_code == 200
    assert client.delete(second).status_code == 409, "the other one is disabled"
    assert client.delete(plain).status_code == 204
    assert client.delete(first).status_code == client.delete(second).status_code == 204, "nobody is left"


def test_nobodys_name_stands_in_the_way_of_a_deletion(client: httpx2.Client) -> None:
    def add(name: str) -> httpx2.Response:
        return client.post("/v1/admin/users", json={"username": name, "password": PASSWORD})

    for end in ("", "/erase"):
        user = add(f"victim{end[1:]}").json()["id"]
        assert add(f"deleted-{user}").status_code == 201
        assert add(f"deleted:{user}").json()["errors"][0]["pointer"] == "/username"
        ended = client.request("POST" if end else "DELETE", f"/v1/admin/users/{user}{end}")
        assert ended.status_code == (202 if end else 204)
        assert client.get(f"/v1/admin/users/{user}").status_code == 404


def test_another_password_under_the_same_key_is_another_request(
    client: httpx2.Client, slipway: Slipway
) -> None:
    headers, body = {"Idempotency-Key": "one-password-only"}, {"username": "ken", "password": PASSWORD}
    assert client.post("/v1/admin/users", json=body, headers=headers).status_code == 201
    body["password"] += "-2"
    other = client.post("/v1/admin/users", json=body, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    slipway.client("ken", PASSWORD).close()
