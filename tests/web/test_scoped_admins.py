"""API keys with scopes, of admins: none makes a credential that reaches as far as its user's own."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx2
import pytest

from tests.conftest import Slipway
from tests.web.people import PASSWORD

USERS = "/v1/admin/users"


@pytest.fixture(params=["actions:admin:users", "models:claude-haiku-4-5", None])
def scope(request: pytest.FixtureRequest) -> str | None:
    """Scope of a key; None: without any."""
    found: str | None = request.param
    return found


@pytest.fixture
def admin(client: httpx2.Client, slipway: Slipway, scope: str | None) -> Iterator[httpx2.Client]:
    """Key of an admin of another workspace than `default`."""
    there = client.post("/v1/admin/workspaces", json={"name": f"w-{secrets.token_hex(4)}"}).json()
    body = {"username": "ada", "password": PASSWORD}
    client.post(USERS, json={**body, "role": "admin", "workspace_id": there["id"]})
    token = client.post("/v1/auth/login", json={**body, "workspace": there["name"]}).json()["access_token"]
    signed = {"Authorization": f"Bearer {token}"}
    key = {"name": "k", "scopes": [scope] if scope else []}
    made = client.post("/v1/auth/keys", json=key, headers=signed).json()["key"]
    with closing(
        httpx2.Client(base_url=slipway.url, headers={"x-api-key": made}, timeout=30, trust_env=False)
    ) as caller:
        yield caller


def add(admin: httpx2.Client, role: str) -> httpx2.Response:
    return admin.post(USERS, json={"username": f"new-{role}", "password": PASSWORD, "role": role})


def test_scoped_key_sets_passwords_and_roles_of_lower_ranks_only(
    admin: httpx2.Client, scope: str | None
) -> None:
    refused = 200 if scope is None else 403
    me = f"{USERS}/{admin.get(f'{USERS}?username=ada').json()['data'][0]['id']}"
    lower = f"{USERS}/{add(admin, 'operator').json()['id']}"
    assert admin.patch(lower, json={"password": f"{PASSWORD}-2"}).status_code == 200
    assert admin.patch(lower, json={"role": "user"}).status_code == 200
    assert add(admin, "admin").status_code == (201 if scope is None else 403)
    for path, change in ((me, {"role": "admin"}), (lower, {"role": "admin"})):
        assert admin.patch(path, json=change).status_code == refused, change
    assert admin.patch(me, json={"limit_runs": "9/minute"}).status_code == 200
    assert admin.patch(f"{USERS}/usr_{'0' * 26}", json={"role": "user"}).status_code == 404
    assert admin.patch(me, json={"password": f"{PASSWORD}-3"}).status_code == refused


def test_scoped_key_of_an_admin_of_the_service_makes_the_first_admin_of_a_workspace(
    client: httpx2.Client, slipway: Slipway
) -> None:
    key: Any = client.post("/v1/auth/keys", json={"name": "k", "scopes": ["actions:admin:*"]}).json()["key"]
    with closing(
        httpx2.Client(base_url=slipway.url, headers={"x-api-key": key}, timeout=30, trust_env=False)
    ) as caller:
        there = caller.post("/v1/admin/workspaces", json={"name": f"w-{secrets.token_hex(4)}"}).json()["id"]
        body = {"username": "first", "password": PASSWORD, "role": "admin"}
        assert caller.post(USERS, json={**body, "workspace_id": there}).status_code == 201
        assert caller.post(USERS, json={**body, "username": "second"}).status_code == 403
