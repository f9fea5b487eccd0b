from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Postgres
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]


@pytest.fixture(scope="module")
def postgres(scratch: Path) -> Iterator[Postgres]:
    """One that these tests may kill."""
    scratch.chmod(0o755)
    server = Postgres(Path(tempfile.mkdtemp(prefix="postgres", dir=scratch)))
    server.start()
    yield server
    server.stop()
