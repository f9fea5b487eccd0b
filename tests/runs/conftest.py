"""What the tests of runs share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.wiring import Services
from tests.conftest import Model, RedisServer
from tests.runs import inside


@pytest.fixture
def wired(tmp_path: Path, redis_server: RedisServer, model: Model) -> Iterator[Services]:
    with inside.services(tmp_path, redis_server.url, model.url) as services:
        yield services
