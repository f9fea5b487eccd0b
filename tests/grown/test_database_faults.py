"""Faults of PostgreSQL under ten requests a second: killed, frozen, refusing, full. Waited for, or 503; 0 runs lost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import httpx2
import psycopg
import pytest

from tests.chaos.conftest import Postgres
from tests.chaos.streams import listening
from tests.conftest import Model, RedisServer, Slipway, wait_until
from tests.grown.databases import postgres_in
from tests.grown.traffic import (
    asked_all_the_while,
    heard_whole,
    names_of,
    refused,
    served,
    states,
    told,
    whole,
)
from tests.small_disk import fill, small_disk

Fault = Callable[[Postgres], AbstractContextManager[object]]
END_ALL = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'app'"


@contextmanager
def killed(server: Postgres) -> Iterator[None]:
    server.kill()
    yield
    server.start()


@contextmanager
def frozen(server: Postgres) -> Iterator[None]:
    with server.hanging():
        yield


@contextmanager
def login_refused(server: Postgres) -> Iterator[None]:
    """Refuse new connections, and end existing ones."""
    server.admit("host all app 127.0.0.1/32 reject")
    server.sql(END_ALL)
    yield
    server.admit("host all app 127.0.0.1/32 trust")


@contextmanager
def no_connection_left(server: Postgres) -> Iterator[None]:
    """Others have all connections that the server takes."""
    with ExitStack() as taken:
        server.sql("ALTER ROLE app CONNECTION LIMIT 0")
        server.sql(END_ALL)
        while True:
            try:
                taken.enter_context(psycopg.connect(server.url.replace("slipway@", "crowd@")))
            except psycopg.OperationalError:
                break
        server.sql("ALTER ROLE app CONNECTION LIMIT -1")
        yield


@contextmanager
def full(server: Postgres) -> Iterator[None]:
    ballast = fill(server.folder.parent)
    yield
    ballast.unlink()


def url_for(server: Postgres) -> str:
    """Create a database owned by a restricted user, to whom limits apply."""
    server.sql("CREATE ROLE app LOGIN")
    server.sql("CREATE ROLE crowd LOGIN")
    server.sql("CREATE DATABASE app OWNER app")
    return server.url.replace("slipway@", "app@").replace("/postgres", "/app")


def kept(server: Slipway, answers: list[httpx2.Response], streams: int) -> dict[str, int]:
    """Count runs by state, without those that finished after a 503 to their client."""
    found = states(server)
    return {**found, "succeeded": min(found["succeeded"], sum(map(whole, answers)) + streams)}


@pytest.mark.parametrize("fault", [killed, login_refused, no_connection_left])
def test_fault_of_three_seconds_fails_no_request(
    scratch: Path, redis_server: RedisServer, model: Model, fault: Fault
) -> None:
    with (
        postgres_in(scratch) as postgres,
        served(scratch, redis_server, model, url_for(postgres)) as server,
        listening(server, 3) as listeners,
        asked_all_the_while(server) as answers,
    ):
        time.sleep(2)
        with fault(postgres):
            time.sleep(3)
        time.sleep(2)
    assert told(answers) == []
    assert [names_of(each) for each in listeners if not heard_whole(each)] == []


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [(killed, 12), (frozen, 10), (frozen, 40), (no_connection_left, 12)],
)
def test_longer_fault_is_503_and_loses_nothing(
    scratch: Path, redis_server: RedisServer, model: Model, fault: Fault, seconds: float
) -> None:
    with (
        postgres_in(scratch) as postgres,
        served(scratch, redis_server, model, url_for(postgres)) as server,
    ):
        with listening(server, 5) as listeners, asked_all_the_while(server) as answers:
            time.sleep(1)
            with fault(postgres):
                time.sleep(seconds)
            with server.visitor() as visitor:
                wait_until(lambda: visitor.get("/ready").status_code == 200, "the database")
            time.sleep(2)
        assert told(answers, lambda answer: whole(answer) or refused(answer)) == []
        assert all(map(whole, answers[-10:]))
        assert [names_of(each) for each in listeners if not heard_whole(each)] == []
        runs = sum(map(whole, answers)) + 5
        assert kept(server, answers, 5) == {"succeeded": runs, "failed": 0, "cancelled": 0}
        assert "Traceback" not in server.log.read_text()


def test_full_disk_is_503_and_loses_nothing(scratch: Path, redis_server: RedisServer, model: Model) -> None:
    with (
        small_disk(scratch / "full", 300) as disk,
        postgres_in(disk) as postgres,
        served(scratch, redis_server, model, url_for(postgres)) as server,
    ):
        with listening(server, 5) as listeners, asked_all_the_while(server) as answers:
            time.sleep(1)
            with full(postgres):
                time.sleep(12)
            with server.visitor() as visitor:
                wait_until(lambda: visitor.get("/ready").status_code == 200, "the database")
            time.sleep(2)
        assert told(answers, lambda answer: whole(answer) or refused(answer)) == []
        assert all(map(whole, answers[-10:]))
        assert [names_of(each) for each in listeners if not heard_whole(each)] == []
        runs = sum(map(whole, answers)) + 5
        assert kept(server, answers, 5) == {"succeeded": runs, "failed": 0, "cancelled": 0}
        assert "Traceback" not in server.log.read_text()


def test_fewer_connections_than_the_pools_need_are_enough(
    scratch: Path, redis_server: RedisServer, model: Model
) -> None:
    with postgres_in(scratch) as postgres:
        url = url_for(postgres)
        postgres.sql("ALTER ROLE app CONNECTION LIMIT 4")
        with served(scratch, redis_server, model, url) as server:
            with asked_all_the_while(server) as answers:
                time.sleep(10)
            assert told(answers) == []
            assert states(server) == {"succeeded": len(answers), "failed": 0, "cancelled": 0}
