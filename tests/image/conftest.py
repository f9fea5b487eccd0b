"""The image and the Compose files, run for real where there is a Docker to run them.

Without a registry or a daemon SLIPWAY_RIG may name a folder with `base-image`, `stand-in`, `build` and `within`:
then `test_rig.py` builds with it and runs all of these inside it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.engine import IMAGE, RIG, ROOT, check_health, docker, reachable

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.image)


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The image's name, built from the Dockerfile unless SLIPWAY_IMAGE_IS_BUILT says that it is there."""
    if not reachable():
        pytest.skip("no Docker answers here (with SLIPWAY_RIG set, test_rig.py runs this inside the rig)")
    if not os.environ.get("SLIPWAY_IMAGE_IS_BUILT"):
        docker("build", "--tag", IMAGE, str(ROOT), timeout=900)
    ended = threading.Event()
    if RIG:
        threading.Thread(target=check_health, args=(ended,), daemon=True).start()
    yield IMAGE
    ended.set()
