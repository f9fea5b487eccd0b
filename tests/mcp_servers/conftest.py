"""Fixtures: mail and calendar running, for all tests of a module or for one; and a scripted model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mcp_servers.house import Desk
from tests.runs.conftest import upstream
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "upstream", "url"]


@pytest.fixture(scope="module")
def shared_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with Desk(tmp_path_factory.mktemp("desk")).start() as desk:
        yield desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with Desk(tmp_path / "desk").start() as running:
        yield running
