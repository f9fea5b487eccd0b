"""Line of tasks with real task workers: in turn, through a killed worker and a wiped Redis, on either database."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx2
import pytest
import redis

from tests.jobs.house import House, ended, until
from tests.jobs.test_lost_parts import storm

__all__ = ["storm"]
MANY, FEW = 250, 10


@pytest.mark.slow
def test_few_tasks_do_not_wait_for_many(storm: tuple[House, httpx2.Client]) -> None:
    """Both are queued before any is taken. Once the few are done, a worker is killed and every message lost."""
    house, ada = storm
    with closing(other_user(house, ada, "bob")) as bob:
        many, few = queue_many(house, ada, MANY), queue_many(house, bob, FEW)
        with house.worker("line").kept() as worker:
            for run_id in few:
                assert ended(bob, run_id)["status"] == "succeeded"
            house.model.control(first_token_ms=1000)
            until(lambda: ada.get("/v1/runs?status=running").json()["data"], "one under way")
            worker.kill_one()
            with closing(redis.Redis.from_url(house.redis.url)) as wiper:
                wiper.flushall()
            house.model.control()
            runs = {run_id: ended(ada, run_id, 300) for run_id in many}
        runs |= {run_id: bob.get(f"/v1/runs/{run_id}").json() for run_id in few}
    assert {run["status"] for run in runs.values()} == {"succeeded"}
    order = sorted(runs, key=lambda run_id: runs[run_id]["step_list"][0]["started_at"])
    assert set(few) < set(order[:100])
    for run_id in many[::10]:
        events = ada.get(f"/v1/runs/{run_id}/events", headers={"Accept": "application/json"}).json()["data"]
        names = Counter(event["event"] for event in events)
        assert names["run.started"] == names["run.completed"] == 1, run_id


def other_user(house: House, admin: httpx2.Client, name: str) -> httpx2.Client:
    user = {"username": name, "password": f"{name}-password", "role": "user"}
    assert admin.post("/v1/admin/users", json=user).status_code == 201
    return house.server.client(name, f"{name}-password")


def queue_many(house: House, client: httpx2.Client, count: int) -> list[str]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda n: house.queue(client, f"Task {n}."), range(count)))
