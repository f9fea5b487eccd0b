"""Full disk under the state folder (SQLite, metric files, logs): 503, and no process ends."""

from __future__ import annotations

import os
import signal
from collections import Counter
from pathlib import Path

import httpx2

from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.small_disk import fill, small_disk

ROUTES = ("/v1/agents", "/v1/runs", "/v1/sessions", "/v1/usage", "/health", "/ready", "/metrics", "/nowhere")


def ask(server: Slipway, client: httpx2.Client) -> Counter[int]:
    """Statuses of reads of many routes and of runs, each over a connection of its own."""
    found: Counter[int] = Counter()
    for number in range(4):
        body = {"input": f"Question {number}", "cache": "bypass"}
        answer = client.post("/v1/agents/assistant/invoke", json=body)
        assert answer.status_code == 200 or answer.json()["code"] == "database_unavailable", answer.text
        found[answer.status_code] += 1
        found.update(client.get(route).status_code for route in ROUTES)
    return found


def test_full_disk_is_503_and_ends_no_process(scratch: Path, redis_server: RedisServer, model: Model) -> None:
    settings = {"WEB_CONCURRENCY": "2", "THREADS": "8"}
    with (
        small_disk(scratch / "disk", 40) as disk,
        slipway_server(disk / "home", redis_server.url, model.url, **settings) as server,
        server.client() as client,
    ):
        wait_until(lambda: len(server.workers()) == 2, "both workers")
        ballast = fill(disk)
        killed = server.workers()[0]
        os.kill(killed, signal.SIGKILL)  # the next one starts without room
        wait_until(lambda: len(server.workers()) == 2 and killed not in server.workers(), "another worker")
        workers = server.workers()
        statuses = ask(server, client)
        assert statuses[503] and not statuses.keys() - {200, 404, 503}
        assert server.workers() == workers
        ballast.unlink()
        wait_until(lambda: client.get("/ready").status_code == 200, "room again")
        assert ask(server, client)[503] == 0
        assert server.workers() == workers
