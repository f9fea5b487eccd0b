"""Runs of one user under way at once: over processes that share Redis, and in each where Redis is away."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from service.errors import RateLimited
from service.ids import new_id
from service.infra.redis import RedisStore
from service.usage import concurrency
from service.usage.concurrency import ConcurrentRuns
from tests.conftest import RedisServer, redis_in, wait_until
from tests.cutter import Cutter

ADA = "usr_ada"


@pytest.fixture
def server(scratch: Path) -> Iterator[RedisServer]:
    """Start a Redis that a test may stop."""
    with redis_in(scratch / "concurrent") as started:
        yield started


def limit(
    server: RedisServer, most: int = 3, seconds: float = 60, ended: Collection[str] = ()
) -> ConcurrentRuns:
    """The limit as one process holds it; `ended` are runs that the database knows to be over."""
    redis_store = RedisStore(server.url, max_connections=4)
    return ConcurrentRuns(redis_store, most, seconds, lambda run_ids: {id: id not in ended for id in run_ids})


def test_processes_count_together(server: RedisServer) -> None:
    first, second = limit(server), limit(server)
    with ExitStack() as under_way:
        for process in (first, second, first):
            under_way.enter_context(process.counted(ADA, new_id("run")))
        for process in (first, second):
            with pytest.raises(RateLimited) as refused, process.counted(ADA, new_id("run")):
                pass
            assert refused.value.retry_after == 1
        with second.counted("usr_bob", new_id("run")):
            pass
    with second.counted(ADA, new_id("run")):
        pass


def test_a_refused_run_does_not_count(server: RedisServer) -> None:
    process = limit(server, most=1)
    with process.counted(ADA, new_id("run")):
        for _ in range(3):
            with pytest.raises(RateLimited), process.counted(ADA, new_id("run")):
                pass
    with process.counted(ADA, new_id("run")):
        pass


def test_a_run_whose_process_died_is_forgotten(server: RedisServer) -> None:
    dead = limit(server, most=1, seconds=2)
    lost = dead.counted(ADA, new_id("run"))  # never left
    lost.__enter__()
    client = redis.Redis.from_url(server.url)
    assert client.zcard(f"slipway:running:{ADA}") == 1
    wait_until(lambda: not client.exists(f"slipway:running:{ADA}"), "the end of its time")
    with limit(server, most=1).counted(ADA, new_id("run")):
        pass


def test_counts_of_a_killed_process_are_reconciled_with_the_database(server: RedisServer) -> None:
    killed, lives = limit(server, most=2), limit(server, most=2, ended=["run_1"])
    left = [killed.counted(ADA, run_id) for run_id in ("run_1", "run_2")]
    for one in left:
        one.__enter__()
    with lives.counted(ADA, "run_3"), pytest.raises(RateLimited), lives.counted(ADA, "run_4"):
        pass


@pytest.mark.parametrize(("opening", "passes"), [(0.0, True), (60.0, False)])
def test_a_run_that_never_began_is_forgotten_once_it_must_have(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, opening: float, passes: bool
) -> None:
    """Its process was refused by another limit, died, or lost Redis's answer, between the count and the run's row."""
    monkeypatch.setattr(concurrency, "OPENING_SECONDS", opening)
    redis_store = RedisStore(server.url, max_connections=4)
    died, lives = (ConcurrentRuns(redis_store, 1, 60, lambda run_ids: {}) for _ in range(2))
    lost = died.counted(ADA, "run_1")  # never left
    lost.__enter__()
    with ExitStack() as stack:
        if not passes:
            stack.enter_context(pytest.raises(RateLimited))
        stack.enter_context(lives.counted(ADA, "run_2"))


def test_a_run_whose_count_was_answered_to_nobody_counts_once(server: RedisServer) -> None:
    """The client sends the script again where a connection ends before its answer."""
    with Cutter(f"{server.folder}/redis.sock").standing() as way:
        redis_store = RedisStore(f"redis://127.0.0.1:{way.port}", max_connections=4)
        process = ConcurrentRuns(redis_store, 1, 60, lambda run_ids: {})
        with process.counted(ADA, "run_1"):
            pass
        for number in range(2, 5):
            way.cut_after("answered", 1)
            with process.counted(ADA, f"run_{number}"):
                assert redis.Redis.from_url(server.url).zcard(f"slipway:running:{ADA}") == 1
        assert way.cuts == 3
    assert redis.Redis.from_url(server.url).zcard(f"slipway:running:{ADA}") == 0


def test_a_run_taken_up_counts_and_is_not_refused(server: RedisServer) -> None:
    process = limit(server, most=1)
    with process.counted(ADA, "run_1"), process.counted(ADA, "run_2", refuse=False):
        pass
    with (
        process.counted(ADA, "run_1", refuse=False),
        pytest.raises(RateLimited),
        process.counted(ADA, "run_3"),
    ):
        pass
    assert redis.Redis.from_url(server.url).zcard(f"slipway:running:{ADA}") == 0


def test_without_redis_each_process_counts_by_itself(server: RedisServer) -> None:
    first, second = limit(server, most=2), limit(server, most=2)
    server.kill()
    for process in (first, second):
        counted = process.counted
        with counted(ADA, "run_1"), counted(ADA, "run_2"), pytest.raises(RateLimited), counted(ADA, "run_3"):
            pass
