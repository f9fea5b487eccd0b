from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Postgres
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
Log = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def postgres(scratch: Path) -> Iterator[Postgres]:
    """Start a PostgreSQL that these tests may kill."""
    scratch.chmod(0o755)
    server = Postgres(Path(tempfile.mkdtemp(prefix="postgres", dir=scratch)))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def causes(caplog: pytest.LogCaptureFixture) -> Log:
    """Read the causes logged with an event."""
    caplog.set_level(logging.INFO, logger="slipway.database")
    return lambda event: [getattr(r, "cause", "") for r in caplog.records if r.getMessage() == event]
