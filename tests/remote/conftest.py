"""Fixtures of the tests of remote agents."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import RedisServer
from tests.remote import house
from tests.remote.house import Far
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]


@pytest.fixture
def far(tmp_path: Path, redis_server: RedisServer) -> Iterator[Far]:
    with house.far(tmp_path, redis_server.url) as made:
        yield made


@pytest.fixture
def far_in_each(tmp_path: Path, redis_server: RedisServer, url: str) -> Iterator[Far]:
    """The same over either database."""
    with house.far(tmp_path, redis_server.url, database_url=url) as made:
        yield made
