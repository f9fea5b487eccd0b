"""Programs of `make run`, for tests of the documentation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.launcher.house import Launcher


@pytest.fixture(scope="session")
def launched(scratch: Path) -> Iterator[Launcher]:
    launcher = Launcher(scratch / "launched")
    try:
        launcher.start()
        yield launcher
    finally:
        launcher.end()
