"""`kill -9` of the replica that relays a model's stream under a key: the run fails, and its call is paid once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from service.store.schema import holds, ledger
from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.examples.slipway_house import selected

MODEL = "claude-haiku-5-5"
BODY = {"model": MODEL, "max_tokens": 2_000, "stream": True}


@pytest.fixture(params=["sqlite", "postgresql"])
def house(
    request: pytest.FixtureRequest, own_redis: RedisServer, model: Model, tmp_path: Path
) -> Iterator[tuple[Slipway, str]]:
    url = f"sqlite:///{tmp_path}/relay.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create("relay")
    model.reset()
    settings = {"DATABASE_URL": url, "WEB_CONCURRENCY": "2"}
    with slipway_server(tmp_path / "a", own_redis.url, model.url, **settings) as server:
        yield server, url
    model.reset()


def test_killed_replica_fails_the_run_and_pays_the_call_once(
    house: tuple[Slipway, str], model: Model
) -> None:
    server, url = house
    model.control(token_ms=100)
    question = {**BODY, "messages": [{"role": "user", "content": "Tell me a long story."}]}
    with server.client() as client:
        with pytest.raises(httpx2.HTTPError), client.stream("POST", "/v1/messages", json=question) as answer:
            pieces = answer.iter_raw()
            next(pieces)
            [(held,)] = selected(url, sa.select(holds.c.amount_nano))
            for pid in server.workers():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            for _ in pieces:
                pass
        model.control()
        run = ended(client)
        assert (run["status"], run["error"]["code"], run["agent"]) == ("failed", "worker_lost", MODEL)
        assert run["usage"]["usage_source"] == "worst"
    assert selected(url, sa.select(holds.c.id)) == []
    of_run = ledger.c.run_id == run["run_id"], ledger.c.account == "upstream", ledger.c.kind == "settle"
    assert [abs(row[0]) for row in selected(url, sa.select(ledger.c.amount_nano).where(*of_run))] == [held]
    assert model.stats()["calls"] == 1


def ended(client: httpx2.Client) -> dict[str, Any]:
    """Wait until the newest run has ended, on another worker; return it."""
    found: list[dict[str, Any]] = []

    def look() -> bool:
        with suppress(httpx2.TransportError):
            listed = client.get("/v1/runs?limit=1").json()["data"]
            found[:] = [client.get(f"/v1/runs/{one['run_id']}").json() for one in listed]
        return bool(found) and found[0]["status"] not in ("running", "queued")

    wait_until(look, "the run's end", 40)
    return found[0]
