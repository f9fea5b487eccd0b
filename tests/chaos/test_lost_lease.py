"""Lost leases: the old worker publishes nothing more, and workers all cut off keep their runs."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.conftest import Postgres
from tests.chaos.streams import fault_of, listening
from tests.chaos.teller import Teller
from tests.conftest import RedisServer, Slipway, slipway_server

LEASE = 3.0  # seconds
STREAMS = 12


@dataclass
class House:
    """Service of two workers over a database that the test can take away."""

    kind: str
    server: Slipway
    teller: Teller
    postgres: Postgres | None
    file: Path

    @contextmanager
    def without_writes(self) -> Iterator[None]:
        """PostgreSQL stopped; or SQLite locked by somebody else, so that nothing can be written."""
        if self.postgres is not None:
            self.postgres.stop("immediate")
            yield
            self.postgres.start()
            return
        with closing(sqlite3.connect(self.file, isolation_level=None, timeout=10)) as locks:
            locks.execute("BEGIN EXCLUSIVE")
            yield
            locks.execute("ROLLBACK")


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def standing(request: pytest.FixtureRequest, scratch: Path, own_redis: RedisServer) -> Iterator[House]:
    home = scratch / f"lease-{request.param}"
    settings = {"WEB_CONCURRENCY": "2", "THREADS": "64", "SWEEP_SECONDS": "0.5"}
    settings |= {"LEASE_SECONDS": str(LEASE), "DATABASE_URL": f"sqlite:///{home}/one.db"}
    postgres: Postgres | None = None
    if request.param == "postgresql":
        postgres = request.getfixturevalue("postgres")
        settings["DATABASE_URL"] = postgres.create("lost_lease")
    with (
        Teller(words=90, pace=0.1).standing() as teller,
        slipway_server(home, own_redis.url, teller.url, **settings) as server,
    ):
        yield House(request.param, server, teller, postgres, home / "one.db")


@pytest.fixture
def house(standing: House) -> House:
    standing.teller.reset()
    return standing


def test_worker_stopped_past_its_lease_publishes_nothing(house: House) -> None:
    with listening(house.server, STREAMS) as listeners:
        stopped, _ = house.server.workers()
        os.kill(stopped, signal.SIGSTOP)
        time.sleep(LEASE * 2)  # the other worker takes its runs up after one
        os.kill(stopped, signal.SIGCONT)
    faults = [fault for listener in listeners if (fault := fault_of(listener.told))]
    assert faults == []
    resumed = sum("run.resumed" in [name for _, name, _ in one.told] for one in listeners)
    assert resumed and house.teller.calls == STREAMS + resumed


def test_workers_all_cut_off_keep_their_runs(house: House) -> None:
    with listening(house.server, STREAMS) as listeners, house.without_writes():
        time.sleep(LEASE * 1.6)
    assert [fault for listener in listeners if (fault := fault_of(listener.told))] == []
    assert house.teller.calls == STREAMS


def test_workers_of_a_hanging_database_keep_their_runs(house: House) -> None:
    """Discard late renewals: statements sent before the hang are answered when every lease has ended."""
    if house.postgres is None:
        pytest.skip("SQLite has no server that could hang")
    with listening(house.server, STREAMS) as listeners, house.postgres.hanging():
        time.sleep(LEASE * 2)
    assert [fault for listener in listeners if (fault := fault_of(listener.told))] == []
    assert house.teller.calls == STREAMS
