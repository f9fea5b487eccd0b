"""Schedules under `kill -9`, jumping clocks and a wiped Redis: each slot has one outcome, and one run at most."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests.chaos.schedule_replicas import MINUTE
from tests.conftest import PYTHON, RedisServer, process, wait_until
from tests.schedules.house import NOON, House

SLOTS = int(os.environ.get("CHAOS_SLOTS", "1000"))
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
    with process(command, {"PYTHONPATH": os.getcwd()}, stderr=sys.stderr) as replicas:
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
    assert told["failed"] == 0
    outcomes: Counter[str] = Counter()
    for schedule_id, policy in ids.items():
        check(house, schedule_id, policy, outcomes)
    print(f"\n{told['killed']} kills, {wiped} times Redis wiped, {dict(outcomes)}")
    assert told["killed"] >= min(3, SLOTS // 100)
    assert outcomes["run"] > 0 and sum(outcomes.values()) >= SLOTS


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
