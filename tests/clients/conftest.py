"""A Slipway for official SDKs as black boxes, of whose doors nothing else is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server


@pytest.fixture(scope="module")
def crowded(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """Two workers with as many threads as in production."""
    settings: Any = {"WEB_CONCURRENCY": "2", "THREADS": "1024", "MODEL_MAX_CONNECTIONS": "1024"}
    patient: Any = {"RUN_TIMEOUT": "120", "MODEL_TIMEOUT": "60", "LIMIT_RUNS": "100000/minute"}
    with slipway_server(scratch / "crowded", redis_server.url, model.url, **settings, **patient) as server:
        yield server


@pytest.fixture(scope="module")
def narrow(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """One worker with few places, and few runs for each user."""
    settings: Any = {"WEB_CONCURRENCY": "1", "THREADS": "16", "LIMIT_CONCURRENT_RUNS": "4"}
    with slipway_server(scratch / "narrow", redis_server.url, model.url, **settings) as server:
        yield server


def key_of(server: Slipway) -> str:
    """An API key of the demo user."""
    with server.client() as client:
        return str(client.post("/v1/auth/keys", json={"name": "sdk"}).json()["key"])
