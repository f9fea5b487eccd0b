"""Fixtures of Anthropic's dialect: its official SDK as a black box."""

from __future__ import annotations

from collections.abc import Iterator

import anthropic
import httpx2
import pytest

from tests.conftest import Slipway


@pytest.fixture
def key(client: httpx2.Client) -> Iterator[str]:
    """API key of the signed-in user, revoked after the test: a user may have a hundred."""
    made = client.post("/v1/auth/keys", json={"name": "sdk"}).json()
    yield made["key"]
    client.delete(f"/v1/auth/keys/{made['id']}")


@pytest.fixture
def sdk(slipway: Slipway, key: str) -> Iterator[anthropic.Anthropic]:
    with sdk_of(slipway, key) as made:
        yield made


def sdk_of(slipway: Slipway, key: str, *, retries: int = 0) -> anthropic.Anthropic:
    http = httpx2.Client(trust_env=False, timeout=60)
    return anthropic.Anthropic(api_key=key, base_url=slipway.url, max_retries=retries, http_client=http)
