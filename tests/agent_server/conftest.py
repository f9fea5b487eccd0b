"""Fixtures of agents that are served alone."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.agent_server import house
from tests.agent_server.house import REACT, SINGLE, Piece
from tests.llm.wire_server import WireServer
from tests.runs.scripted import Upstream, message, says
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]

STRICT = REACT.replace("approvals: []", "approvals: [look]")


@pytest.fixture
def upstream() -> Iterator[WireServer]:
    server = Upstream(message(says("Good day.")))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def piece(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Piece]:
    """One server for the tests of a module, which leave it as it was."""
    home = tmp_path_factory.mktemp("pieces")
    folders = house.write(home, {"probe": SINGLE, "looker": REACT, "strict": STRICT})
    with house.served(home / "log", folders, "--at-once", "4") as running:
        yield running
