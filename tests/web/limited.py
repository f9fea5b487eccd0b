"""Two replicas under rate limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.auth.house import PASSWORD, Replica


def invoke(replica: Replica, token: str, agent: str = "plain") -> Any:
    return replica.client(token).post(f"/v1/agents/{agent}/invoke")


@pytest.fixture
def pair(replicas: Callable[..., Replica]) -> tuple[Replica, Replica, str]:
    """Two replicas with a limit of ten, and a token."""
    first, second = replicas(limit_runs="10/minute"), replicas(limit_runs="10/minute")
    first.users.create("ada", PASSWORD)
    return first, second, first.login()["access_token"]
