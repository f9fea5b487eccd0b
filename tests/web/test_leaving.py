"""A client that leaves its stream, and a server that has to: what becomes of the run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.web.test_doors import events_of

LONG = "[offline tokens=40 token_ms={pace}] A long answer, please."


@pytest.fixture
def calm(model: Model) -> Iterator[Model]:
    model.reset()
    yield model
    model.reset()


def begin(client: httpx2.Client, held: ExitStack, pace: int, **more: Any) -> tuple[str, Iterator[str]]:
    """The run's id, and the lines of its stream after the first piece of text."""
    body = {"input": LONG.format(pace=pace), "cache": "bypass", **more}
    lines = held.enter_context(client.stream("POST", "/v1/agents/assistant/stream", json=body)).iter_lines()
    first = next(line for line in lines if line.startswith("id: "))
    assert "event: text.delta" in lines
    return first.removeprefix("id: ").partition(":")[0], lines


def status(client: httpx2.Client, run_id: str) -> str:
    return str(client.get(f"/v1/runs/{run_id}").json()["status"])


def test_a_run_goes_on_when_its_client_leaves(client: httpx2.Client, calm: Model) -> None:
    with ExitStack() as held:
        run_id, _ = begin(client, held, pace=30)
    wait_until(lambda: status(client, run_id) != "running", "its end")
    run = client.get(f"/v1/runs/{run_id}").json()
    assert run["status"] == "succeeded" and len(run["output"]) > 40
    assert calm.stats()["closed_early"] == 0
    told = events_of(client.get(f"/v1/runs/{run_id}/events").text)
    assert "".join(data["text"] for _, name, data in told if name == "text.delta") == run["output"]


def test_or_ends_then_where_the_client_wants_that(client: httpx2.Client, calm: Model) -> None:
    with ExitStack() as held:
        run_id, _ = begin(client, held, pace=1000, on_disconnect="cancel")
    wait_until(lambda: status(client, run_id) == "cancelled", "its end")
    wait_until(lambda: calm.stats()["closed_early"] == 1, "the end of the upstream call")
    run = client.get(f"/v1/runs/{run_id}").json()
    assert run["error"]["code"] == "run_cancelled"
    assert run["usage"]["output_tokens"] > 0 and run["usage"]["cost_usd"] != "0.000000"  # billed all the same


def test_a_server_that_stops_sends_its_clients_elsewhere(
    client: httpx2.Client, slipway: Slipway, redis_server: RedisServer, calm: Model
) -> None:
    home = Path(slipway.env["SLIPWAY_HOME"])  # a second replica, over the same database
    settings = {"WEB_CONCURRENCY": "1", "THREADS": "8", "GRACEFUL_TIMEOUT": "8"}
    token = {"Authorization": client.headers["Authorization"]}
    with slipway_server(home, redis_server.url, calm.url, **settings) as leaves, ExitStack() as held:
        reader = held.enter_context(httpx2.Client(base_url=leaves.url, headers=token, timeout=60))
        run_id, lines = begin(reader, held, pace=400)
        leaves.child.terminate()
        assert wait_until(lambda: not _ready(leaves), "no more readiness")
        rest = list(lines)
        assert "event: reconnect" in rest and "event: run.completed" not in rest
        last = [line for line in rest if line.startswith("id: ")][-1].removeprefix("id: ")
        calm.control()
        told = events_of(client.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": last}).text)
        assert told[-1][1] == "run.completed"
        assert leaves.child.wait(40) == 0
        whole = events_of(client.get(f"/v1/runs/{run_id}/events").text)
        assert [int(event_id.rpartition(":")[2]) for event_id, _, _ in whole] == list(
            range(1, len(whole) + 1)
        )
        listed = client.get(f"/v1/runs/{run_id}").json()
        assert (listed["status"], listed["output"]) == ("succeeded", told[-1][2]["output"])


def _ready(server: Slipway) -> bool:
    try:
        return httpx2.get(f"{server.url}/ready", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False
