"""`kill -9` of the worker between an approval and the mail: sent once at most, and once after a second approval."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.mcp_servers.house import Desk

KILLS = int(os.environ.get("CHAOS_KILLS", "4"))
AFTER = 0.06  # seconds from the approval to the kill, at most: a call takes some 20 ms
REPLY = {"input": "Reply to the mail about the team offsite: Thursday suits me.", "cache": "bypass"}


@pytest.fixture
def server(
    tmp_path: Path, redis_server: RedisServer, model: Model, desk: Desk, url: str
) -> Iterator[Slipway]:
    settings = {**desk.env, "DATABASE_URL": url, "WEB_CONCURRENCY": "1", "THREADS": "8"}
    with slipway_server(tmp_path / "home", redis_server.url, model.url, **settings) as running:
        yield running


def asks(client: httpx2.Client) -> tuple[str, str]:
    """Return a run that waits, and its approval."""
    run = client.post("/v1/agents/concierge/invoke", json=REPLY).json()
    assert run["status"] == "waiting_approval", run
    (approval,) = run["approvals"]
    return run["run_id"], approval


def approve(client: httpx2.Client, approval: str) -> None:
    answer = client.post(f"/v1/approvals/{approval}", json={"decision": "approve"})
    assert answer.status_code == 200, answer.text


def come_to_rest(client: httpx2.Client, run_id: str, before: str = "") -> dict[str, Any]:
    """Wait until a run has ended, or waits for another approval than `before`."""

    def rested() -> dict[str, Any] | None:
        run: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()
        waits = run["status"] == "waiting_approval" and run.get("approvals") != [before]
        return run if waits or run["status"] in ("succeeded", "failed") else None

    found: dict[str, Any] = wait_until(rested, "the end of the run, or its question")
    return found


def kill_worker(server: Slipway) -> None:
    (worker,) = server.workers()
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: worker not in server.workers(), "the end of the worker")


@pytest.mark.timeout(300)
def test_mail_whose_worker_was_killed_is_sent_once(server: Slipway, desk: Desk) -> None:
    random.seed(int(os.environ.get("SEED", "21")))
    unknown = 0
    for number in range(KILLS):
        with closing(server.client()) as client:
            run_id, approval = asks(client)
            if number % 2:  # in the middle of a call, whose request waits at the server
                with desk.paused():
                    approve(client, approval)
                    time.sleep(0.5)
                    kill_worker(server)
            else:
                approve(client, approval)
                time.sleep(random.uniform(0, AFTER))
                kill_worker(server)
            run = come_to_rest(client, run_id, approval)
            assert len(desk.outbox()) <= number + 1
            if run["status"] == "waiting_approval":
                unknown += 1
                (asked,) = client.get("/v1/approvals?status=pending").json()["data"]
                again = asked["id"]
                assert (asked["run_id"], asked["reason"]) == (run_id, "unknown")
                approve(client, again)
                run = come_to_rest(client, run_id, again)
            assert run["status"] == "succeeded", run
            assert len(desk.outbox()) == number + 1
    assert unknown >= KILLS // 2  # else it proves little
