"""Database of a test that sends webhooks without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.store.database import Database
from service.store.schema import metadata
from tests.tables import create_tables


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/webhooks.db")
    create_tables(database.engine)
    user = {
        "id": "usr_1",
        "username": "ada",
        "password_hash": "x",
        "role": "user",
        "created_at": 0,
        "disabled": False,
    }
    with database.begin() as tx:
        tx.execute(metadata.tables["users"].insert(), user)
    yield database
    database.close()
