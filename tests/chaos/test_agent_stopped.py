"""Kill switch on three replicas under many streams: no call begins, and after the release each run ends once."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.store.database import Database
from service.usage.ledger import check
from service.usage.prices import PriceTable
from tests.chaos.conftest import Postgres
from tests.chaos.test_worker_killed import Reader, kill_workers
from tests.conftest import Model, RedisServer, Slipway, redis_in, slipway_server, wait_until

STREAMS = int(os.environ.get("CHAOS_STREAMS", "30"))
AGENT, CALLS = "scribe", 4
QUESTION = {"input": f"Call the append_line tool {CALLS} times.", "cache": "bypass"}


class Patient(Reader):
    """Waits a moment before it reconnects, as `docs/events.md` asks for."""

    def _take(self, response: httpx2.Response) -> None:
        super()._take(response)
        time.sleep(0.5)


@contextmanager
def three(
    folder: Path, postgres: Postgres, redis: RedisServer, model: Model, **settings: str
) -> Iterator[list[Slipway]]:
    shared = {"DATABASE_URL": postgres.create(folder.name.replace("-", "_")), "WEB_CONCURRENCY": "1"}
    shared |= {"THREADS": str(STREAMS + 16), "LIMIT_RUNS": "none", "LIMIT_CONCURRENT_RUNS": "none"}
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                slipway_server(folder / name, redis.url, model.url, **shared, SWEEP_SECONDS="1", **settings)
            )
            for name in ("one", "two", "three")
        ]


@pytest.mark.parametrize("with_redis", [True, False], ids=["redis", "no-redis"])
def test_stopped_agent_calls_nothing_and_goes_on_after_its_release(
    scratch: Path, postgres: Postgres, model: Model, agents_dir: Path, with_redis: bool
) -> None:
    folder = scratch / f"stopped-{with_redis}".lower()
    lines = scratch / f"lines-{folder.name}"
    lines.write_text("")
    own = {"AGENTS_DIR": str(agents_dir), "TEST_LINES": str(lines)}
    model.reset()
    model.control(first_token_ms=400)
    with (
        redis_in(folder.with_suffix(".redis")) as redis,
        three(folder, postgres, redis, model, **own) as servers,
        closing(servers[0].client()) as admin,
    ):
        token = {"Authorization": admin.headers["Authorization"]}
        readers = [reader_of(servers[number % 3], token) for number in range(STREAMS)]
        threads = [threading.Thread(target=reader.read, args=(QUESTION,), daemon=True) for reader in readers]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(len(reader.events) > 2 for reader in readers), "a step of every stream", 60)
        if not with_redis:
            redis.kill()
        stopped = admin.post(f"/v1/admin/agents/{AGENT}/stop", json={"reason": "It writes too much."})
        assert stopped.status_code == 200, stopped.text
        time.sleep(1)
        model_calls(model, reset=True)
        made = lines.read_text().split()
        wait_until(lambda: not runs_of(admin, "running"), "every run to pause", 60)
        paused = runs_of(admin, "paused")
        refused = admin.post(f"/v1/agents/{AGENT}/invoke", json=QUESTION)
        assert (refused.status_code, refused.json()["code"]) == (503, "agent_stopped")
        kill_workers(servers[1])
        time.sleep(2)  # sweeps, and clients that ask again
        assert model_calls(model) == 0 and lines.read_text().split() == made
        assert len(paused) > STREAMS / 2 and sorted(paused) == sorted(runs_of(admin, "paused"))
        released = admin.post(f"/v1/admin/agents/{AGENT}/release")
        assert released.status_code == 200, released.text
        for thread in threads:
            thread.join(120)
        assert [fault for reader in readers if (fault := fault_of_calls(reader)) is not None] == []
        assert Counter(lines.read_text().split()).most_common(1)[0][1] == 1
        assert len(lines.read_text().split()) == STREAMS * CALLS
        db = Database(servers[0].env["DATABASE_URL"])
        with closing(db):
            assert check(db, PriceTable.load()).faults == []
        for reader in readers:
            reader.client.close()


def reader_of(server: Slipway, token: dict[str, str]) -> Patient:
    limits = httpx2.Limits(max_keepalive_connections=0)
    client = httpx2.Client(base_url=server.url, timeout=60, trust_env=False, headers=token, limits=limits)
    return Patient(server, kill_at=-1, client=client)


def model_calls(model: Model, *, reset: bool = False) -> int:
    """Count calls that have begun since the last reset."""
    if reset:
        httpx2.post(f"{model.url}/stats/reset", timeout=30).raise_for_status()
    return int(model.stats()["calls"])


def runs_of(admin: httpx2.Client, status: str) -> list[str]:
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        asked: dict[str, Any] = {"status": status, "limit": 100} | ({"cursor": cursor} if cursor else {})
        answer = admin.get("/v1/runs", params=asked).json()
        found += [run["run_id"] for run in answer["data"]]
        cursor = answer["next_cursor"]
    return found


def fault_of_calls(reader: Reader) -> str | None:
    """Return the fault of a client's events; None: one last event, and each call told once."""
    called = Counter(data["call_id"] for _, name, data in reader.events if name == "tool.called")
    if len(called) != CALLS or max(called.values()) > 1:
        return f"calls: {called}"
    names = [name for _, name, _ in reader.events]
    if names[-1:] != ["run.completed"] or names.count("run.completed") != 1:
        return f"ends with {names[-3:]}"
    seqs = [seq for seq, _, _ in reader.events]
    return None if seqs == sorted(set(seqs)) else f"numbers: {seqs}"
