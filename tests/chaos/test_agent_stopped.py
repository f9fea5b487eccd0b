"""Kill switch on three replicas under many streams: no call begins, and after the release each run ends once.

The same where a part is away, or a replica hangs, during the stop.
"""

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
from tests.chaos.replicas import frozen
from tests.chaos.streams import text_of
from tests.chaos.test_worker_killed import Reader, kill_workers
from tests.conftest import Model, RedisServer, Slipway, redis_in, slipway_server, wait_until

STREAMS = int(os.environ.get("CHAOS_STREAMS", "30"))
FEW = 12  # streams, where a part is away
# The values of tests are too small for hundreds of streams on few cores.
AS_IN_PRODUCTION = {"LEASE_SECONDS": "10", "MODEL_MAX_CONNECTIONS": "1024", "RUN_TIMEOUT": "300"}
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
    own = {"DATABASE_URL": postgres.create(folder.name.replace("-", "_")), "WEB_CONCURRENCY": "1"}
    own |= {"THREADS": str(STREAMS + 16), "LIMIT_RUNS": "none", "LIMIT_CONCURRENT_RUNS": "none"}
    own |= {"SWEEP_SECONDS": "1", **AS_IN_PRODUCTION, **settings}
    with ExitStack() as stack:
        yield [
            stack.enter_context(slipway_server(folder / name, redis.url, model.url, **own))
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
        readers, threads = reading(servers, admin, STREAMS, AGENT)
        if not with_redis:
            redis.kill()
        stopped = switch(admin, AGENT, "stop")
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
        released = switch(admin, AGENT, "release")
        assert released.status_code == 200, released.text
        join(threads, readers)
        assert [fault for reader in readers if (fault := fault_of_calls(reader)) is not None] == []
        assert Counter(lines.read_text().split()).most_common(1)[0][1] == 1
        assert len(lines.read_text().split()) == STREAMS * CALLS
        books_add_up(servers[0])


def test_stop_while_the_database_is_away_is_refused_and_then_holds(
    scratch: Path, postgres: Postgres, own_redis: RedisServer, model: Model, agents_dir: Path
) -> None:
    lines = scratch / "lines-database"
    lines.write_text("")
    model.control(first_token_ms=400)
    own = {"AGENTS_DIR": str(agents_dir), "TEST_LINES": str(lines)}
    with (
        three(scratch / "stopped-database", postgres, own_redis, model, **own) as servers,
        closing(servers[0].client()) as admin,
    ):
        readers, threads = reading(servers, admin, FEW, AGENT)
        postgres.stop("immediate")
        try:
            refused = switch(admin, AGENT, "stop")
            assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
            model_calls(model, reset=True)
            time.sleep(1)
            assert model_calls(model) == 0, "without the database no call begins"
        finally:
            postgres.start()
        wait_until(lambda: switch(admin, AGENT, "stop").status_code == 200, "the stop")
        time.sleep(1)
        model_calls(model, reset=True)
        wait_until(lambda: not runs_of(admin, "running"), "every run to pause", 60)
        time.sleep(2)
        assert model_calls(model) == 0 and runs_of(admin, "paused")
        assert switch(admin, AGENT, "release").status_code == 200
        join(threads, readers)
        assert [fault for reader in readers if (fault := fault_of_calls(reader)) is not None] == []
        assert sorted(Counter(lines.read_text().split()).values()) == [1] * FEW * CALLS
        books_add_up(servers[0])


def test_replica_that_hangs_during_a_stop_begins_nothing_when_it_wakes_up(
    scratch: Path, postgres: Postgres, own_redis: RedisServer, model: Model
) -> None:
    """Its runs are taken over meanwhile, as its lease is over."""
    model.control(first_token_ms=400, token_ms=60)
    with (
        three(scratch / "stopped-hanging", postgres, own_redis, model, LEASE_SECONDS="2") as servers,
        closing(servers[0].client()) as admin,
    ):
        readers, threads = reading(servers, admin, FEW, "assistant")
        with frozen(servers[2]):
            assert switch(admin, "assistant", "stop").status_code == 200
            time.sleep(1)
            model_calls(model, reset=True)
            wait_until(lambda: len(runs_of(admin, "paused")) == FEW / 3, "its runs to be taken over")
        with closing(servers[2].visitor()) as awake:
            awake.headers["Authorization"] = admin.headers["Authorization"]
            refused = awake.post("/v1/agents/assistant/invoke", json={"input": "Still?", "cache": "bypass"})
        assert (refused.status_code, refused.json()["code"]) == (503, "agent_stopped")
        time.sleep(2)
        assert model_calls(model) == 0 and len(runs_of(admin, "paused")) == FEW / 3
        assert switch(admin, "assistant", "release").status_code == 200
        join(threads, readers)
        assert [reader.events[-1][1] for reader in readers] == ["run.completed"] * FEW
        assert all(text_of(reader.events) == reader.events[-1][2]["output"] for reader in readers)
        books_add_up(servers[0])


def switch(admin: httpx2.Client, agent: str, to: str) -> httpx2.Response:
    body = {"reason": "It writes too much."} if to == "stop" else None
    return admin.post(f"/v1/admin/agents/{agent}/{to}", json=body)


def reading(
    servers: list[Slipway], admin: httpx2.Client, count: int, agent: str
) -> tuple[list[Patient], list[threading.Thread]]:
    """Open streams of an agent on all replicas, each of which has got its first text or step."""
    token = {"Authorization": admin.headers["Authorization"]}
    readers = [reader_of(servers[number % 3], token) for number in range(count)]
    threads = [
        threading.Thread(target=reader.read, args=(QUESTION, agent), daemon=True) for reader in readers
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(len(reader.events) > 2 for reader in readers), "a step of every stream", 60)
    return readers, threads


def join(threads: list[threading.Thread], readers: list[Patient]) -> None:
    for thread in threads:
        thread.join(120)
    for reader in readers:
        reader.client.close()


def books_add_up(server: Slipway) -> None:
    with closing(Database(server.env["DATABASE_URL"])) as db:
        assert check(db, PriceTable.load()).faults == []


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
    names = [name for _, name, _ in reader.events]
    if names[-1:] != ["run.completed"] or names.count("run.completed") != 1:
        return f"{reader.run_id} ends with {names[-3:]}: {reader.events[-1][2].get('error')}"
    if len(called) != CALLS or max(called.values()) > 1:
        return f"{reader.run_id} calls: {called}"
    seqs = [seq for seq, _, _ in reader.events]
    return None if seqs == sorted(set(seqs)) else f"numbers: {seqs}"
