"""`kill -9` of the worker of a run that is longer than its context window: one whole answer, no event twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.chaos.test_worker_killed import Reader as Client
from tests.conftest import RedisServer, Slipway, slipway_server
from tests.messages_api.server import MessagesApi
from tests.runs.long_work import SPEC, TOOLS, Reader

PAGES = 20
WINDOW = 4_000  # tokens
EVENTS = 110  # of such a run, about
KILLS = 8


@pytest.fixture
def served(scratch: Path, redis_server: RedisServer) -> Iterator[tuple[Slipway, MessagesApi]]:
    home = scratch / "compacted"
    folder = home / "agents" / "reader"
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text(SPEC.format(window=WINDOW, steps=PAGES + 1))
    (folder / "prompt.md").write_text("Read pages.")
    (folder / "tools.py").write_text(TOOLS)
    api = MessagesApi(Reader(PAGES, size=3_200), WINDOW)
    settings = {"AGENTS_DIR": str(home / "agents"), "LEASE_SECONDS": "3"}
    with closing(api), slipway_server(home, redis_server.url, api.url, **settings) as server:  # type: ignore[arg-type]
        yield server, api


def test_killed_worker_compacts_again_and_tells_each_event_once(served: tuple[Slipway, MessagesApi]) -> None:
    server, api = served
    random.seed(20)
    resumed = 0
    for _ in range(KILLS):
        client = Client(server, kill_at=random.randint(2, EVENTS - 10))
        result = client.read({"input": "Read all pages.", "cache": "bypass"}, "reader")
        client.client.close()
        assert (result["status"], result["output"]) == ("succeeded", "The code is K-7731."), result.get(
            "error"
        )
        numbers = [number for number, _, _ in client.events]
        assert numbers == list(range(1, len(numbers) + 1))
        called = [data["call_id"] for _, name, data in client.events if name == "tool.called"]
        steps = [data["name"] for _, name, data in client.events if name == "step.started"]
        assert len(called) == len(set(called)) == PAGES and len(steps) == len(set(steps))
        assert sum(name.startswith("compact") for name in steps) >= 3
        resumed += any(name == "run.resumed" for _, name, _ in client.events)
    assert resumed > KILLS / 2 and (api.faults, api.too_long) == ([], 0)
