"""Queued runs, over a real Gunicorn and a real Celery worker."""

from __future__ import annotations

import os
import signal

import httpx2
import pytest

from tests.conftest import Slipway
from tests.jobs.house import House, TaskWorker, ended, until


def test_task_is_queued_and_succeeds(house: House, worker: TaskWorker, client: httpx2.Client) -> None:
    answer = client.post(
        "/v1/agents/support/tasks", json={"input": "Within how many days can I get a refund?"}
    )
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")
    assert answer.headers["Location"] == f"/v1/runs/{answer.json()['run_id']}"
    run = ended(client, answer.json()["run_id"])
    assert (run["status"], run["door"]) == ("succeeded", "task")
    assert "30 days" in run["output"]
    assert house.model.stats()["calls"] == 2  # classify, and answer


def test_task_events_can_be_followed_from_the_start(
    house: House, worker: TaskWorker, client: httpx2.Client
) -> None:
    run_id = house.queue(client, "What is 17 * 23?", "analyst")
    text = client.get(f"/v1/runs/{run_id}/events").text
    names = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
    assert (names[0], names[-1]) == ("run.started", "run.completed")
    assert "gap" not in names


def test_same_idempotency_key_returns_the_same_task(
    house: House, worker: TaskWorker, client: httpx2.Client
) -> None:
    asked = {"json": {"input": "Only once."}, "headers": {"Idempotency-Key": "one-task-only"}}
    first, second = (client.post("/v1/agents/assistant/tasks", **asked) for _ in range(2))
    assert first.json()["run_id"] == second.json()["run_id"]
    assert "Idempotency-Replayed" not in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    ended(client, first.json()["run_id"])
    assert house.model.stats()["calls"] == 1


def test_running_task_is_cancelled(house: House, worker: TaskWorker, client: httpx2.Client) -> None:
    house.model.control(first_token_ms=20, token_ms=500)
    run_id = house.queue(client, "Tell me something long, please, with many words in it.")
    until(lambda: client.get(f"/v1/runs/{run_id}").json()["status"] == "running", "its start")
    assert client.post(f"/v1/runs/{run_id}/cancel").status_code == 202
    assert ended(client, run_id)["status"] == "cancelled"
    until(lambda: house.model.stats()["closed_early"] == 1, "the end of the upstream call")


def test_task_worker_metrics_are_counted(house: House, worker: TaskWorker, client: httpx2.Client) -> None:
    def told(name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))

    runs = 'slipway_runs_total{agent="assistant",status="succeeded"}'
    before, calls = told(runs), told("slipway_model_calls_total")
    ended(client, house.queue(client, "Count me."))
    assert told(runs) == before + 1 and told("slipway_model_calls_total") > calls


def test_ready_reports_the_task_worker(house: House, worker: TaskWorker, client: httpx2.Client) -> None:
    assert until(lambda: client.get("/ready").json()["worker"]["status"] == "ok", "a worker")


def test_killed_pool_process_loses_no_task(house: House, worker: TaskWorker, client: httpx2.Client) -> None:
    house.model.control(first_token_ms=1500)
    run_ids = [house.queue(client, f"Task {number}") for number in range(2)]
    until(lambda: all(_status(client, run_id) == "running" for run_id in run_ids), "the start of both")
    worker.kill_one()
    house.model.control()
    runs = [ended(client, run_id) for run_id in run_ids]
    assert [run["status"] for run in runs] == ["succeeded", "succeeded"]


def test_hanging_redis_neither_fails_nor_loses_a_task(
    house: House, worker: TaskWorker, client: httpx2.Client
) -> None:
    assert house.redis.child is not None
    os.kill(house.redis.child.pid, signal.SIGSTOP)
    try:
        run_ids = [house.queue(client, f"Whether Redis answers or not: {number}") for number in range(5)]
    finally:
        os.kill(house.redis.child.pid, signal.SIGCONT)
    assert {ended(client, run_id)["status"] for run_id in run_ids} == {"succeeded"}


def test_sweep_finds_tasks_queued_without_a_message(
    house: House, worker: TaskWorker, client: httpx2.Client
) -> None:
    run_id = house.queue(client, "Somebody will find me.")
    ended(client, run_id)
    # As if its message had never been sent, and the process that should have sent it were gone.
    house.sql("UPDATE runs SET status = 'queued', finished_at = NULL, wake_at = 0 WHERE id = ?", run_id)
    assert ended(client, run_id)["status"] == "succeeded"


@pytest.mark.parametrize(
    "body,pointer",
    [
        ({"input": "x", "callback_url": "http://127.0.0.1/hook"}, "/callback_url"),
        ({"input": "x", "callback_url": "http://localhost:9000/"}, "/callback_url"),
        ({"input": "x", "callback_url": "http://169.254.169.254/latest"}, "/callback_url"),
        ({"input": "x", "callback_url": "https://user:pass@example.com/"}, "/callback_url"),
        ({"input": "x", "callback_url": "ftp://example.com/"}, "/callback_url"),
        ({"input": "x", "priority": "soon"}, "/priority"),
        ({"callback_url": "https://example.com/"}, ""),
    ],
)
def test_invalid_task_request_is_422(slipway: Slipway, body: dict[str, str], pointer: str) -> None:
    """Here webhooks may not go to this machine, as anywhere but in tests."""
    with slipway.client() as client:
        answer = client.post("/v1/agents/assistant/tasks", json=body)
    assert answer.status_code == 422
    assert [fault["pointer"] for fault in answer.json()["errors"]] == [pointer]


def test_task_for_an_unknown_agent_is_404(slipway: Slipway) -> None:
    with slipway.client() as client:
        assert client.post("/v1/agents/nobody/tasks", json={"input": "x"}).status_code == 404


def _status(client: httpx2.Client, run_id: str) -> str:
    return str(client.get(f"/v1/runs/{run_id}").json()["status"])
