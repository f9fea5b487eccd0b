"""Fixtures of the examples. `python_of` takes half a minute, once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.examples import house
from tests.examples.house import EXAMPLES, Example
from tests.messages_api.server import MessagesApi
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]


@pytest.fixture(scope="session")
def python_of(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    cache = request.config.cache.mkdir("examples")  # type: ignore[union-attr]
    return lambda name: house.environment(EXAMPLES / name, cache)


@pytest.fixture
def api() -> Iterator[MessagesApi]:
    server = MessagesApi(house.refunds)
    yield server
    server.close()


@pytest.fixture
def helpdesk(python_of: Callable[[str], Path], tmp_path: Path) -> Iterator[Example]:
    with house.served(EXAMPLES / "langgraph", python_of("langgraph"), tmp_path) as example:
        yield example
