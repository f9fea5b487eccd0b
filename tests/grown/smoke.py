"""Smoke test of everything that uses Redis: log-in, invoke, stream, cache, limits, a Celery task, sign-out."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import httpx2
import pytest

from tests.conftest import Slipway, wait_until
from tests.jobs.house import TaskWorker


@contextmanager
def task_worker(server: Slipway, **settings: str) -> Iterator[TaskWorker]:
    """Task worker of the same service, restarted when it ends, as by a supervisor."""
    env = {**server.env, "TASK_CONCURRENCY": "1", **settings}
    worker = TaskWorker(env, server.log.with_name(f"worker-{server.port}.log"))
    with worker.kept():
        yield worker


def ready(server: Slipway) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{server.url}/ready", timeout=5, trust_env=False).json()
    return found


def round_trip(server: Slipway, *, celery: bool) -> None:
    """Run the whole round. `celery`: a task worker must be there, and execute the task."""
    with server.client() as client:
        wait_until(lambda: _shared(server, client), "limits to be counted in Redis by all workers", 60)
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


def _shared(server: Slipway, client: httpx2.Client) -> bool:
    """Check that every worker uses Redis again; workers notice on a request."""
    told = [ready(server)["redis"] for _ in range(8)]
    for _ in range(8):
        client.get("/v1/auth/me")
    figures = re.findall(r"^slipway_(?:limiter_fallback|redis_up)\b.*$", client.get("/metrics").text, re.M)
    print([part for part in told if part["status"] != "ok"], figures)  # shown where it fails
    return all(part["status"] == "ok" for part in told) and "slipway_limiter_fallback 0.0" in figures


def task(server: Slipway, client: httpx2.Client, text: str) -> None:
    """Runs in the background until one was done by Celery: where a message is late, the web processes do it."""
    log = server.log.with_name(f"worker-{server.port}.log")
    for number in range(5):
        body = {"input": f"{text} Later {number}"}
        run_id = client.post("/v1/agents/assistant/tasks", json=body).json()["run_id"]
        wait_until(
            lambda run_id=run_id: client.get(f"/v1/runs/{run_id}").json()["status"] == "succeeded",  # type: ignore[misc]
            f"the end of {run_id}",
            60,
        )
        time.sleep(0.5)  # until the line of what has ended is written
        if run_id in log.read_text():
            return
    pytest.fail("the task worker did none of five tasks")


class Load:
    """Ten requests a second, a run each, for as long as the block lasts; every fourth is queued as a task."""

    def __init__(self, server: Slipway) -> None:
        self.failed: list[str] = []
        self.done = 0
        self.slowest, self.what = 0.0, ""
        self.queued: list[str] = []
        self._server = server
        self._client = server.client()
        self._stop = threading.Event()

    def __enter__(self) -> Load:
        self._pool = ThreadPoolExecutor(64)
        self._clock = threading.Thread(target=self._run)
        self._clock.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._clock.join()
        self._pool.shutdown(wait=True)

    def verdict(self) -> str:
        slowest = f"slowest {self.slowest:.2f} s ({self.what})"
        return f"{len(self.failed)} of {self.done} failed, {slowest}; {self.failed[:5]}"

    def lost(self) -> list[str]:
        """Tasks that have not succeeded within a minute."""
        left = set(self.queued)

        def over() -> bool:
            for run_id in list(left):
                if self._client.get(f"/v1/runs/{run_id}").json()["status"] == "succeeded":
                    left.discard(run_id)
            return not left

        with suppress(pytest.fail.Exception):
            wait_until(over, "the tasks", 60)
        self._client.close()
        return sorted(left)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.1):
            number += 1
            self._pool.submit(self._one, number)

    def _one(self, number: int) -> None:
        kind = "tasks" if number % 4 == 0 else "stream" if number % 4 == 1 else "invoke"
        began = time.monotonic()
        try:
            body = {"input": f"What is {number} plus {time.time_ns()}?"}
            answer = self._client.post(f"/v1/agents/assistant/{kind}", json=body, timeout=30)
            said = f"{kind} {answer.status_code} {answer.text[:200]}"
            if kind == "tasks" and answer.status_code == 202:
                self.queued.append(answer.json()["run_id"])
            elif answer.status_code != 200 or (kind == "stream" and "run.completed" not in answer.text):
                self.failed.append(said)
        except Exception as error:
            self.failed.append(f"{kind} {error!r}")
        self.done += 1
        took = time.monotonic() - began
        if took > self.slowest:
            self.slowest, self.what = took, kind
