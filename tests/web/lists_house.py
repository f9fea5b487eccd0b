"""Application with a signed-in admin, for rows as large as they get."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient

from service.store import schema
from service.store.database import Transaction
from service.wiring import Services
from tests.made import app_in, close

MIB = 1024 * 1024


class House:
    """An application with a signed-in admin, and rows as large as they get."""

    def __init__(self, folder: Path, url: str) -> None:
        self.app = app_in(folder, DATABASE_URL=url)
        self.client: FlaskClient = self.app.test_client()
        services: Services = self.app.extensions["slipway"]
        user = services.auth.users.by_name("demo")
        assert user is not None
        self.user_id = user.id
        token = services.auth.tokens.begin(user).public()["access_token"]
        self.signed_in = {"Authorization": f"Bearer {token}"}

    def add(self, table: str, *rows: dict[str, Any]) -> None:
        into = schema.metadata.tables[table]

        def work(tx: Transaction) -> None:
            for row in rows:
                tx.execute(sa.insert(into), tx.sealed(into, row, self.user_id))

        self.app.extensions["slipway"].infra.db.transact(work)

    def get(self, path: str, **query: Any) -> Any:
        return self.client.get(path, query_string=query, headers=self.signed_in)

    def pages(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Every page of a list; each must be small, and cost little."""
        cursor: str | None = None
        for _ in range(200):
            tracemalloc.start()
            answer = self.get(path, **query, **({} if cursor is None else {"cursor": cursor}))
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            assert answer.status_code == 200, answer.text
            assert len(answer.data) <= MIB
            assert peak < 24 * MIB
            body: dict[str, Any] = answer.json
            yield body
            if (cursor := body["next_cursor"]) is None:
                return
        pytest.fail(f"{path} has no end")

    def items(self, path: str, part: str = "data", **query: Any) -> list[dict[str, Any]]:
        return [item for body in self.pages(path, **query) for item in body[part]]


@pytest.fixture
def house(tmp_path: Path, url: str) -> Iterator[House]:
    made = House(tmp_path, url)
    yield made
    close(made.app)
