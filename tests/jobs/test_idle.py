"""What an idle process costs: its trips to PostgreSQL and Redis, counted on the wire; a pool that grows on demand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import httpx2
import pytest

from config import load
from launcher import programs
from tests.chaos.conftest import Postgres
from tests.conftest import Model, free_port, process, redis_in, slipway_server, wait_until
from tests.grown.slow import SlowWay
from tests.jobs.house import CELERY, House, ended, until

SECONDS = 12  # of idleness that are watched
SCHEMA_CHECK = 8  # trips of `service.store.fitness`, every half a minute
TRIPS = 2 * SECONDS + SCHEMA_CHECK  # of one process, at most
POLLS = 2 * SECONDS  # of Celery's own, in the parent of a task worker: it asks its queues every second
PRODUCTION = {"LEASE_SECONDS": "10", "SWEEP_SECONDS": "3"}


class Ways(NamedTuple):
    """Ways of one process to PostgreSQL and Redis."""

    database: SlowWay
    redis: SlowWay

    @property
    def settings(self) -> dict[str, str]:
        return {
            "DATABASE_URL": f"postgresql://slipway@127.0.0.1:{self.database.port}/idle",
            "REDIS_URL": f"redis://127.0.0.1:{self.redis.port}",
        }

    @property
    def trips(self) -> tuple[int, int]:
        return self.database.trips, self.redis.trips


@contextmanager
def ways_to(postgres: Postgres, redis_port: int) -> Iterator[Ways]:
    with SlowWay(postgres.port).standing() as database, SlowWay(redis_port).standing() as redis:
        yield Ways(database, redis)


@pytest.mark.slow
def test_idle_processes_make_few_trips(postgres: Postgres, scratch: Path, model: Model) -> None:
    with ExitStack() as stack:
        port = free_port()
        stack.enter_context(redis_in(scratch / "idle-redis", "--save", "", "--port", str(port)))
        web, task = (stack.enter_context(ways_to(postgres, port)) for _ in range(2))
        postgres.create("idle")
        settings = {**PRODUCTION, **web.settings, "WEB_CONCURRENCY": "1", "TASK_CONCURRENCY": "1"}
        redis_url = settings.pop("REDIS_URL")
        server = stack.enter_context(slipway_server(scratch / "idle", redis_url, model.url, **settings))
        stack.enter_context(process(CELERY, {**server.env, **task.settings}))
        client = stack.enter_context(server.client())
        wait_until(lambda: client.get("/ready").json()["worker"]["status"] == "ok", "the task worker")
        assert client.post("/v1/agents/assistant/invoke", json={"input": "Hello"}).status_code == 200
        ended(client, client.post("/v1/agents/assistant/tasks", json={"input": "Hello"}).json()["run_id"])
        time.sleep(5)  # for what is still on its way
        before = web.trips, task.trips
        time.sleep(SECONDS)
        after = web.trips, task.trips
    made = [[now - then for now, then in zip(*pair, strict=True)] for pair in zip(after, before, strict=True)]
    print(made)
    assert sum(made[0]) <= TRIPS
    assert made[1][0] <= TRIPS and made[1][1] <= POLLS


def test_pool_of_make_run_grows_while_tasks_wait(house: House, client: httpx2.Client) -> None:
    command = programs.worker(load(house.server.env), forked=False).command
    house.model.control(first_token_ms=4000)
    with replace(house.worker("growing"), command=command).running() as worker:
        until(lambda: client.get("/ready").json()["worker"]["status"] == "ok", "the first process")
        until(lambda: len(worker.pool()) == 1, "a pool of one")
        run_ids: list[str] = []

        def grown() -> bool:
            """Queue another, as the web server takes up tasks that wait for long."""
            run_ids.append(house.queue(client, f"Side by side, {len(run_ids)}."))
            return len(worker.pool()) == 2

        until(grown, "a second process")
        house.model.control()
        for run_id in run_ids:
            assert ended(client, run_id)["status"] == "succeeded"
