"""Workers killed while Redis is down or behind: the successor declares missing events."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.streams import Listener, fault_of, listening
from tests.chaos.teller import Teller
from tests.chaos.test_worker_killed import kill_workers
from tests.conftest import RedisServer, Slipway, redis_in, slipway_server, wait_until

STREAMS = 10


@dataclass
class House:
    server: Slipway
    teller: Teller
    redis: RedisServer

    def stop_redis(self, how: signal.Signals) -> None:
        assert self.redis.child is not None
        os.kill(self.redis.child.pid, how)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def house(request: pytest.FixtureRequest, scratch: Path) -> Iterator[House]:
    """Redis with an append-only file, as in `make run` and `docker compose`."""
    home = scratch / f"behind-{request.param}"
    settings = {"WEB_CONCURRENCY": "2", "THREADS": "64", "LEASE_SECONDS": "2", "SWEEP_SECONDS": "0.5"}
    if request.param == "postgresql":
        settings["DATABASE_URL"] = request.getfixturevalue("postgres").create("redis_behind")
    with (
        redis_in(home / "redis", "--appendonly", "yes", "--save", "") as redis,
        Teller(words=60, pace=0.1).standing() as teller,
        slipway_server(home, redis.url, teller.url, **settings) as server,
    ):
        yield House(server, teller, redis)


def assert_whole(listeners: list[Listener]) -> None:
    """Check one whole answer per client, each after a notice that earlier text may be void."""
    assert [fault for listener in listeners if (fault := fault_of(listener.told))] == []
    for listener in listeners:
        resumed = next(seq for seq, name, _ in listener.told if name == "run.resumed")
        before = max(seq for seq, name, _ in listener.told if seq < resumed and name != "gap")
        assert resumed > before + 1, "the numbers do not jump"


def test_redis_frozen_around_a_worker_kill(house: House) -> None:
    with listening(house.server, STREAMS) as listeners:
        house.stop_redis(signal.SIGSTOP)
        before = [listener.words for listener in listeners]
        time.sleep(2)  # clients go on to be told, past Redis
        assert all(one.words > count + 4 for one, count in zip(listeners, before, strict=True))
        kill_workers(house.server)
        time.sleep(0.5)
        house.stop_redis(signal.SIGCONT)
    assert_whole(listeners)


def test_redis_restarted_without_its_last_second(house: House) -> None:
    with listening(house.server, STREAMS) as listeners:
        (log,) = (house.redis.folder / "appendonlydir").glob("*.incr.aof")
        kept = log.stat().st_size
        wait_until(lambda: all(one.words >= 15 for one in listeners), "more words")
        workers = house.server.workers()
        for pid in workers:  # they never notice that Redis was away
            os.kill(pid, signal.SIGSTOP)
        house.redis.kill()
        os.truncate(log, kept)
        house.redis.start()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
    assert_whole(listeners)


def test_redis_restarted_with_all_its_data(house: House) -> None:
    """Cover a restart without loss, indistinguishable from the last one, as the server's run id is new."""
    with listening(house.server, STREAMS) as listeners:
        workers = house.server.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        house.redis.kill()
        house.redis.start()
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
    assert_whole(listeners)
