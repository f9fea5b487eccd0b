"""Schedules under `kill -9`, jumping clocks and a wiped Redis: each slot has one outcome, and one run at most."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
import sqlalchemy as sa

from service.store.schema import runs, schedule_slots, schedules
from tests.chaos.conftest import Postgres
from tests.chaos.schedule_replicas import MINUTE
from tests.conftest import PYTHON, ROOT, Model, RedisServer, Slipway, process, slipway_server, wait_until
from tests.jobs.house import TaskWorker
from tests.schedules.house import NOON, House
from tests.usage.house import House as Books

SLOTS = int(os.environ.get("CHAOS_SLOTS", "1000"))
REAL_SLOTS = int(os.environ.get("CHAOS_REAL_SLOTS", "200"))  # each of them a whole run
SCHEDULES = 20
POLICIES = ("skip", "once", "all")


@pytest.fixture(params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    url = f"sqlite:///{tmp_path}/schedules.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create(f"schedules{random.randrange(10**9)}")
    made = House(tmp_path, url, monkeypatch)
    yield made
    made.app.extensions["slipway"].close()


def test_each_slot_has_one_outcome_and_one_run_at_most(
    house: House, tmp_path: Path, own_redis: RedisServer
) -> None:
    ids = {house.add(missed=POLICIES[number % 3]): POLICIES[number % 3] for number in range(SCHEDULES)}
    minutes = SLOTS // SCHEDULES
    clock = tmp_path / "clock"
    clock.write_text(str(NOON))
    url = house.services.infra.db.engine.url.render_as_string(hide_password=False)
    command = [PYTHON, "-m", "tests.chaos.schedule_replicas", str(tmp_path), url, own_redis.url]
    wiped = 0
    with (
        (tmp_path / "replicas.log").open("wb") as log,
        process(command, {"PYTHONPATH": str(ROOT)}, stderr=log) as replicas,
    ):
        client = redis.Redis.from_url(own_redis.url)
        for minute in range(1, minutes + 1):
            fresh = tmp_path / "clock.new"
            fresh.write_text(str(NOON + minute * MINUTE + random.randrange(MINUTE)))
            fresh.rename(clock)
            time.sleep(random.uniform(0.05, 0.4))
            client.flushall()
            wiped += 1
        client.close()
        house.now = NOON + minutes * MINUTE
        wait_until(
            lambda: all(house.schedule(one)["next_at"] > house.now for one in ids), "every decision", 120
        )
        (tmp_path / "stop").touch()
        replicas.wait(60)
    told = json.loads((tmp_path / "told").read_text())
    assert told["failed"] == 0, (tmp_path / "replicas.log").read_text()[-4000:]
    outcomes: Counter[str] = Counter()
    for schedule_id, policy in ids.items():
        check(house, schedule_id, policy, outcomes)
    print(f"\n{told['killed']} kills, {wiped} times Redis wiped, {dict(outcomes)}")
    assert told["killed"] >= min(3, SLOTS // 100)
    assert outcomes["run"] > 0 and sum(outcomes.values()) >= SLOTS


@pytest.fixture(params=["sqlite", "postgresql"])
def real(
    request: pytest.FixtureRequest, tmp_path: Path, own_redis: RedisServer, model: Model
) -> Iterator[Real]:
    """A server of two web workers, and a task worker of two processes: four that decide about slots."""
    url = f"sqlite:///{tmp_path}/slots.db"
    postgres = request.getfixturevalue("postgres") if request.param == "postgresql" else None
    if postgres is not None:
        url = postgres.create(f"slots{random.randrange(10**9)}")
    settings = {"DATABASE_URL": url, "WEB_CONCURRENCY": "2", "TASK_CONCURRENCY": "2", "SWEEP_SECONDS": "0.5"}
    settings |= {"LIMIT_WRITES": "none", "LIMIT_READS": "none"}
    with slipway_server(tmp_path / "slots", own_redis.url, model.url, **settings) as server:
        worker = TaskWorker(server.env, tmp_path / "worker.log")
        books = Books(url.replace("postgresql:", "postgresql+psycopg:"), create=False)
        with worker.kept(), closing(books.db), closing(server.client()) as client:
            yield Real(server, worker, own_redis, postgres, books, client)


@dataclass
class Real:
    server: Slipway
    worker: TaskWorker
    redis: RedisServer
    postgres: Postgres | None
    books: Books
    client: httpx2.Client

    def kill_a_part(self, turn: int) -> None:
        parts = [
            self._kill_a_web_worker,
            self._kill_a_pool_process,
            self._kill_the_task_worker,
            self._kill_redis,
        ]
        parts += [] if self.postgres is None else [self._kill_postgres]
        parts[turn % len(parts)]()

    def _kill_a_web_worker(self) -> None:
        with suppress(IndexError, ProcessLookupError):  # they are just starting
            os.kill(random.choice(self.server.workers()), signal.SIGKILL)

    def _kill_a_pool_process(self) -> None:
        with suppress(IndexError, ProcessLookupError, AssertionError):  # they are just starting
            self.worker.kill_one()

    def _kill_the_task_worker(self) -> None:
        with suppress(ProcessLookupError, AssertionError):
            self.worker.kill()

    def _kill_redis(self) -> None:
        """It comes back empty."""
        self.redis.kill()
        self.redis.start()

    def _kill_postgres(self) -> None:
        assert self.postgres is not None
        self.postgres.kill()
        self.postgres.start()

    def rows(self, table: sa.Table) -> list[Any]:
        return list(self.books.db.query(lambda tx: tx.rows(sa.select(table)), patience=30))


def test_real_parts_are_killed_and_each_slot_runs_once_to_its_end(real: Real) -> None:
    new = {"agent": "assistant", "input": "Say hello.", "cron": "* * * * *", "missed": "all"}
    ids = [real.client.post("/v1/schedules", json=new).json()["id"] for _ in range(SCHEDULES)]
    minutes = min(REAL_SLOTS // SCHEDULES, 90)
    past = sa.update(schedules).values(next_at=schedules.c.next_at - minutes * MINUTE)
    began = {row["id"]: row["next_at"] - minutes * MINUTE for row in real.rows(schedules)}
    real.books.db.transact(lambda tx: tx.execute(past))
    turn = 0
    while any(row["next_at"] < began[row["id"]] + minutes * MINUTE for row in real.rows(schedules)):
        time.sleep(random.uniform(0.2, 1.5))
        real.kill_a_part(turn)
        turn += 1
    real.books.db.transact(lambda tx: tx.execute(sa.update(schedules).values(enabled=False, next_at=None)))
    wait_until(lambda: all(run["finished_at"] for run in real.rows(runs)), "the end of all runs", 600)
    slots, made = real.rows(schedule_slots), {run["id"]: run for run in real.rows(runs)}
    print(f"\n{turn} kills, {len(slots)} slots, {Counter(run['status'] for run in made.values())}")
    assert len(ids) == SCHEDULES and {slot["outcome"] for slot in slots} == {"run"}
    assert sorted(slot["run_id"] for slot in slots) == sorted(made)
    for schedule_id in ids:
        own = sorted(slot["slot"] for slot in slots if slot["schedule_id"] == schedule_id)
        assert own == [began[schedule_id] + n * MINUTE for n in range(len(own))] and len(own) >= minutes
    assert {run["status"] for run in made.values()} == {"succeeded"}


def check(house: House, schedule_id: str, policy: str, outcomes: Counter[str]) -> None:
    """Check that the slots up to the next one are told once each, as the policy has it; `ran` looks for their runs."""
    ran = house.ran(schedule_id)
    assert len(set(ran)) == len(ran)
    rows = house.slots(schedule_id)
    covered = [minute for first, last, _, _ in rows for minute in range(first, last + 1)]
    upto = (house.schedule(schedule_id)["next_at"] - NOON) // MINUTE
    assert covered == list(range(1, upto)), schedule_id
    assert {outcome for _, _, outcome, _ in rows} <= {"run", "skipped"}
    outcomes.update(outcome for first, last, outcome, _ in rows for _ in range(first, last + 1))
    if policy == "all":  # no jump is longer than its bound
        assert ran == covered
