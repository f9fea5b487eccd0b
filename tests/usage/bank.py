"""Slipway with a ledger of its own, and users of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from service.store.database import Database
from service.store.schema import holds, ledger
from service.usage.ledger import check
from tests.conftest import Model, RedisServer, Slipway, model_server, slipway_server
from tests.usage.house import TABLE

QUESTION = {"input": "What does the Team plan cost?", "cache": "bypass", "tier": "simple"}


@pytest.fixture(scope="module")
def own_model() -> Iterator[Model]:
    with model_server() as model:
        yield model


@pytest.fixture(scope="module")
def bank(
    tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer, own_model: Model
) -> Iterator[Slipway]:
    """Start a Slipway with a ledger for this module alone."""
    home = tmp_path_factory.mktemp("bank")
    with slipway_server(home, redis_server.url, own_model.url, MODEL_TIMEOUT="1") as server:
        yield server


@pytest.fixture(scope="module")
def admin(bank: Slipway) -> Iterator[httpx2.Client]:
    with bank.client() as client:
        yield client


@pytest.fixture
def db(bank: Slipway, own_model: Model) -> Iterator[Database]:
    own_model.reset()
    database = Database(f"sqlite:///{bank.env['SLIPWAY_HOME']}/slipway.db")
    yield database
    own_model.reset()
    assert check(database, TABLE).faults == []
    assert database.query(lambda tx: tx.rows(holds.select())) == []
    database.close()


@pytest.fixture
def user(
    admin: httpx2.Client, bank: Slipway, request: pytest.FixtureRequest
) -> Iterator[tuple[str, httpx2.Client]]:
    """Sign in as a new user without usage."""
    name = f"u{abs(hash(request.node.nodeid)) % 10**10}"
    body = {"username": name, "password": "long-enough", "role": "user"}
    made = admin.post("/v1/admin/users", json=body).json()
    with bank.client(name, "long-enough") as client:
        yield made["id"], client


def settlements(db: Database, user_id: str) -> list[dict[str, Any]]:
    rows = db.query(
        lambda tx: tx.rows(ledger.select().where(ledger.c.user_id == user_id).order_by(ledger.c.at))
    )
    return [dict(row) for row in rows if row["account"] == "upstream"]
