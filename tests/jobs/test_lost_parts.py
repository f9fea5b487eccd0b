"""Task workers stopped, broker lost, and a thousand tasks while Redis is wiped or down."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.chaos.conftest import Postgres
from tests.conftest import Model, RedisServer, redis_in, slipway_server
from tests.jobs.conftest import SETTINGS
from tests.jobs.house import House, Receiver, ended, until

TASKS = 1000


@pytest.mark.slow
def test_stopping_worker_hands_over_unfinished_runs(house: House, client: httpx2.Client) -> None:
    house.model.control(token_ms=1000)
    with house.worker("first", GRACEFUL_TIMEOUT="2").running() as first:
        run_id = house.queue(client, "A long answer of many words, please: as long as you can make it.")
        until(lambda: client.get(f"/v1/runs/{run_id}").json()["status"] == "running", "its start")
        assert first.child is not None
        first.child.terminate()
        assert first.child.wait(30) == 0
    [(status, losses)] = house.sql("SELECT status, losses FROM runs WHERE id = ?", run_id)
    assert (status, losses) == ("queued", 0)
    ready = client.get("/ready")  # no task worker is left: tasks wait as rows
    assert (ready.status_code, ready.json()["worker"]["status"]) == (200, "degraded")
    more = client.post("/v1/agents/assistant/tasks", json={"input": "Whenever you can."})
    assert more.status_code == 202
    house.model.control()
    with house.worker("second").running():
        assert ended(client, run_id)["status"] == "succeeded"
        assert ended(client, more.json()["run_id"])["status"] == "succeeded"
    assert house.sql("SELECT attempt, losses FROM runs WHERE id = ?", run_id) == [(2, 0)]


@pytest.mark.slow
@pytest.mark.parametrize("worker_too", [False, True], ids=["alone", "with the worker"])
def test_task_survives_a_broker_restart(house: House, client: httpx2.Client, worker_too: bool) -> None:
    """Cover both outcomes: a worker whose Redis dies before an acknowledgement may exit (kombu), or reconnect."""
    house.model.control(first_token_ms=2000)
    with house.worker(f"kept-{worker_too}").kept() as worker:
        run_ids = [house.queue(client, f"Whatever happens, {number}.") for number in range(2)]
        until(lambda: _statuses(client, run_ids) == {"running": 2}, "the start of both")
        house.redis.kill()
        if worker_too:
            worker.kill()
            until(lambda: worker.starts > 1, "another start of the worker")
        house.redis.start()
        house.model.control()
        run_ids.append(house.queue(client, "And one after it."))
        for run_id in run_ids:
            assert ended(client, run_id)["status"] == "succeeded"


@pytest.fixture(params=["sqlite", "postgresql"])
def storm(
    request: pytest.FixtureRequest, scratch: Path, model: Model, receiver: Receiver
) -> Iterator[tuple[House, httpx2.Client]]:
    # The usual lease: with the tests' own of 2 s, a machine that is busy enough counts as a dead worker.
    settings = {**SETTINGS, "LEASE_SECONDS": "10"}
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        settings["DATABASE_URL"] = postgres.url
    model.reset()
    with (
        redis_in(scratch / f"storm-{request.param}") as broker,
        slipway_server(scratch / f"storm-home-{request.param}", broker.url, model.url, **settings) as server,
        closing(server.client()) as client,
    ):
        yield House(server, broker, model, receiver), client


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_thousand_tasks_survive_a_wiped_redis(storm: tuple[House, httpx2.Client]) -> None:
    house, client = storm
    run_ids = _queue_many(house, client)
    with house.worker("storm").kept() as worker:
        until(lambda: _done(client, run_ids) > 50, "the first of them", 120)
        _wipe(house.redis)
        until(lambda: _done(client, run_ids) == TASKS, "all of them", 600)
    assert worker.starts == 1
    _each_once(house, client, run_ids)
    assert house.model.stats()["calls"] == TASKS


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_thousand_tasks_survive_a_redis_outage(storm: tuple[House, httpx2.Client]) -> None:
    house, client = storm
    with house.worker("storm").kept():
        run_ids = _queue_many(house, client, TASKS // 2)
        until(lambda: _done(client, run_ids) > 50, "the first of them", 120)
        house.redis.kill()
        run_ids += _queue_many(house, client, TASKS // 2)
        before = _done(client, run_ids)
        until(lambda: _done(client, run_ids) > before + 20, "some without Redis", 120)
        house.redis.start()
        until(lambda: _done(client, run_ids) == TASKS, "all of them", 600)
    _each_once(house, client, run_ids)


def _queue_many(house: House, client: httpx2.Client, number: int = TASKS) -> list[str]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda n: house.queue(client, f"Task number {n}."), range(number)))


def _wipe(server: RedisServer) -> None:
    with closing(redis.Redis.from_url(server.url)) as wiper:
        wiper.flushall()


def _every(client: httpx2.Client) -> Iterator[dict[str, Any]]:
    cursor = ""
    while cursor is not None:
        page = client.get(f"/v1/runs?limit=100{cursor and f'&cursor={cursor}'}").json()
        yield from page["data"]
        cursor = page["next_cursor"]


def _done(client: httpx2.Client, run_ids: list[str]) -> int:
    wanted = set(run_ids)
    return sum(run["run_id"] in wanted and run["status"] == "succeeded" for run in _every(client))


def _statuses(client: httpx2.Client, run_ids: list[str]) -> Counter[str]:
    return Counter(client.get(f"/v1/runs/{run_id}").json()["status"] for run_id in run_ids)


def _each_once(house: House, client: httpx2.Client, run_ids: list[str]) -> None:
    """Check one run and one answer per task: no duplicate steps or events."""
    assert len(set(run_ids)) == TASKS
    for run_id in run_ids[:: TASKS // 50]:
        events = client.get(f"/v1/runs/{run_id}/events", headers={"Accept": "application/json"}).json()[
            "data"
        ]
        names = Counter(event["event"] for event in events)
        assert names["run.started"] == names["run.completed"] == names["usage"] == 1, run_id
        text = "".join(event["data"]["text"] for event in events if event["event"] == "text.delta")
        assert text == events[-1]["data"]["output"], run_id
