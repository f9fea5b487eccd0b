"""Cancellation closes the upstream connection in every state, and the run ends `cancelled`."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from tests.chaos.houses import House
from tests.conftest import wait_until

BOUND = 2.0  # seconds: the promise of the contract, as a time-out of waiting and not as a measurement


def started(client: httpx2.Client, model_calls: Any) -> str:
    """Return the id of the only running run, once its call has reached the model."""
    wait_until(model_calls, "the model call")
    runs = client.get("/v1/runs", params={"status": "running"}).json()["data"]
    assert len(runs) == 1
    run_id: str = runs[0]["run_id"]
    return run_id


@pytest.mark.parametrize("door", ["invoke", "stream"])
@pytest.mark.parametrize("fault", ["hang", "slow tokens"])
def test_cancel_closes_the_upstream_connection(house: House, door: str, fault: str) -> None:
    if fault == "hang":
        house.model.control(fault="hang")
    else:
        house.model.control(token_ms=300)
    with house.server.client() as client:
        asked = threading.Thread(
            target=lambda: client.post(
                f"/v1/agents/assistant/{door}", json={"input": "Wait.", "cache": "bypass"}
            )
        )
        asked.start()
        run_id = started(client, lambda: house.model.stats()["in_flight"] == 1)
        assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
        wait_until(lambda: house.model.stats()["closed_early"] == 1, "the closed connection", BOUND)
        wait_until(lambda: client.get(f"/v1/runs/{run_id}").json()["status"] == "cancelled", "the end", BOUND)
        asked.join(60)
        events = client.get(f"/v1/runs/{run_id}/events", headers={"Accept": "application/json"}).json()[
            "data"
        ]
        assert events[-1]["event"] == "run.cancelled"
        again = client.post(f"/v1/runs/{run_id}/cancel")
        assert (again.status_code, again.json()["code"]) == (409, "run_finished")


def test_run_of_a_dead_worker_is_cancelled(house: House) -> None:
    house.model.control(fault="hang")
    with house.server.client() as client:
        asked = threading.Thread(target=_ask_and_lose, args=(client,))
        asked.start()
        run_id = started(client, lambda: house.model.stats()["in_flight"] == 1)
        for pid in house.server.workers():
            os.kill(pid, signal.SIGKILL)
        asked.join(60)
        house.model.control()
        wait_until(lambda: client.get("/health").status_code == 200, "new workers")
        answer = client.post(f"/v1/runs/{run_id}/cancel")
        assert answer.status_code == 202
        wait_until(
            lambda: client.get(f"/v1/runs/{run_id}").json()["status"] in ("cancelled", "succeeded"),
            "the end",
            15,
        )


def _ask_and_lose(client: httpx2.Client) -> None:
    with suppress(httpx2.HTTPError):  # its worker was killed
        client.post("/v1/agents/assistant/invoke", json={"input": "Wait.", "cache": "bypass"})
