"""Fixtures of the gateway's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.gateway import house
from tests.gateway.house import Gateway
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]


@pytest.fixture
def gateway(tmp_path: Path, redis_server: RedisServer, url: str) -> Iterator[Gateway]:
    """The gateway over either database."""
    with house.gateway(tmp_path, redis_server.url, database_url=url) as made:
        yield made
