from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.knowledge.house import House
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
Make = Callable[..., House]


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Makes houses over the same database."""
    made: list[House] = []

    def house(**options: Any) -> House:
        made.append(House(url, **options))
        return made[-1]

    yield house
    for house in made:
        house.close()


@pytest.fixture
def house(make: Make) -> House:
    return make()
