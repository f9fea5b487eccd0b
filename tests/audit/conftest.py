from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from service.store.database import Database
from tests.tables import create_tables
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with closing(Database(url)) as database:
        create_tables(database.engine)
        yield database
