"""Fixtures: a scripted model, and an agent before the evil server over stdio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.mcp import house
from tests.runs.conftest import upstream
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "upstream", "url"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Folder of the evil server."""
    return tmp_path / "evil"


@pytest.fixture
def evil(tmp_path: Path, redis_server: RedisServer, upstream: WireServer, folder: Path) -> Iterator[Services]:
    servers = {"evil": house.stdio(folder)}
    with house.services(tmp_path, redis_server.url, upstream, servers) as wired:
        yield wired
