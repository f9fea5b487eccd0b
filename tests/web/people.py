"""Other people than the admin who is there from the start."""

from __future__ import annotations

import secrets

import httpx2

from tests.conftest import Slipway

PASSWORD = "a-password-of-some-length"


def join(slipway: Slipway, admin: httpx2.Client, role: str = "user") -> httpx2.Client:
    """A new user, signed in."""
    username = f"{role}-{secrets.token_hex(4)}"
    body = {"username": username, "password": PASSWORD, "role": role}
    answer = admin.post("/v1/admin/users", json=body)
    assert answer.status_code == 201, answer.text
    return slipway.client(username, PASSWORD)
