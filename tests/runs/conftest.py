"""Fixtures for tests of runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.llm.wire_server import MESSAGE, WireServer, whole
from tests.runs import inside, scripted
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, model: Model) -> Iterator[Services]:
    with inside.services(tmp_path, redis_server.url, model.url) as services:
        yield services


@pytest.fixture
def upstream() -> Iterator[WireServer]:
    """A model that answers as it is told, and "Good day." when nothing is said."""
    server = scripted.Upstream(whole(MESSAGE))
    yield server
    server.stop()


@pytest.fixture
def acting(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Iterator[Services]:
    """An agent with tools before that model."""
    with scripted.services(tmp_path, redis_server.url, upstream) as services:
        yield services


@pytest.fixture
def kept_in_each(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str
) -> Iterator[Services]:
    """The same over either database."""
    with scripted.services(tmp_path, redis_server.url, upstream, database_url=url) as services:
        yield services


@pytest.fixture
def acting_asking(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Iterator[Services]:
    """That agent, which must ask before it pays money back."""
    spec = scripted.REACT + "approvals: [refund]\n"
    with scripted.services(tmp_path, redis_server.url, upstream, spec) as services:
        yield services
