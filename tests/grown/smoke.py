"""A round through what Redis is used for: log-in, invoke, stream, cache, limits, a task by Celery, sign-out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from tests.conftest import Slipway, wait_until
from tests.jobs.house import TaskWorker


@contextmanager
def task_worker(server: Slipway, **settings: str) -> Iterator[TaskWorker]:
    """Of the same service, kept running as a supervisor would."""
    env = {**server.env, "TASK_CONCURRENCY": "1", **settings}
    worker = TaskWorker(env, server.log.with_name(f"worker-{server.port}.log"))
    with worker.kept():
        yield worker


def ready(server: Slipway) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{server.url}/ready", timeout=5, trust_env=False).json()
    return found


def round_trip(server: Slipway, *, celery: bool) -> None:
    """All of it. With `celery` the task must be done by the task worker, which has to be there."""
    with server.client() as client:
        text = f"What is {time.time_ns()} plus 1?"
        first = client.post("/v1/agents/assistant/invoke", json={"input": text})
        assert first.status_code == 200 and first.headers["X-Cache"] == "miss", first.text
        again = client.post("/v1/agents/assistant/invoke", json={"input": text})
        assert again.status_code == 200 and again.headers["X-Cache"] == "hit"
        assert int(first.headers["RateLimit-Remaining"]) > int(again.headers["RateLimit-Remaining"])
        streamed = client.post("/v1/agents/assistant/stream", json={"input": f"{text} Say it"}).text
        assert "event: run.completed" in streamed
        if celery:
            task(server, client, text)
        assert client.post("/v1/auth/logout").status_code == 204
        assert client.get("/v1/auth/me").status_code == 401


def task(server: Slipway, client: httpx2.Client, text: str) -> None:
    """A run in the background, by Celery: the task worker's log names it."""
    run_id = client.post("/v1/agents/assistant/tasks", json={"input": f"{text} Later"}).json()["run_id"]
    wait_until(
        lambda: client.get(f"/v1/runs/{run_id}").json()["status"] == "succeeded", f"the end of {run_id}", 60
    )
    log = server.log.with_name(f"worker-{server.port}.log")
    wait_until(lambda: run_id in log.read_text(), "the task worker's line", 10)
