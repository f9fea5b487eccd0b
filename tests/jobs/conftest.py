"""Shared service with one task worker for quick tests, separate parts for destructive ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.chaos.conftest import agents_dir, postgres
from tests.conftest import Model, RedisServer, redis_in, slipway_server
from tests.jobs.house import House, Receiver, TaskWorker

__all__ = ["agents_dir", "postgres"]
SETTINGS = {
    "WEB_CONCURRENCY": "1",
    "THREADS": "12",
    "TASK_CONCURRENCY": "2",
    "WEBHOOK_ALLOW_PRIVATE": "1",
    "LIMIT_RUNS": "100000/minute",
}


@pytest.fixture(scope="session")
def task_redis(scratch: Path) -> Iterator[RedisServer]:
    """Redis server, for tests that wipe, stop and kill it."""
    with redis_in(scratch / "task-redis") as server:
        yield server


@pytest.fixture(scope="session")
def receiver() -> Iterator[Receiver]:
    with closing(Receiver()) as somebody:
        yield somebody


@pytest.fixture(scope="session")
def standing(scratch: Path, task_redis: RedisServer, model: Model, receiver: Receiver) -> Iterator[House]:
    with slipway_server(scratch / "tasks", task_redis.url, model.url, **SETTINGS) as server:
        yield House(server, task_redis, model, receiver)


@pytest.fixture(scope="session")
def _standing_worker(standing: House) -> Iterator[TaskWorker]:
    with standing.worker("standing").running() as worker:
        yield worker


@pytest.fixture
def house(standing: House) -> Iterator[House]:
    standing.model.reset()
    yield standing
    standing.model.reset()


@pytest.fixture
def worker(house: House, _standing_worker: TaskWorker) -> TaskWorker:
    return _standing_worker


@pytest.fixture
def client(house: House) -> Iterator[httpx2.Client]:
    with closing(house.server.client()) as signed_in:
        yield signed_in
