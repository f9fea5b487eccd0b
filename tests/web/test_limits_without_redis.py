"""Rate limits while Redis is away, and once it is back."""

from __future__ import annotations

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import redis

from tests.auth.house import Replica
from tests.conftest import RedisServer, wait_until
from tests.web.limited import invoke, pair

__all__ = ["pair"]


@pytest.mark.parametrize("frozen", [False, True])
def test_without_redis_each_replica_counts_and_says_so(
    pair: tuple[Replica, Replica, str], own_redis: RedisServer, frozen: bool
) -> None:
    first, second, token = pair
    for replica in (first, second):
        with ThreadPoolExecutor(8) as pool:
            assert 200 in [answer.status_code for answer in pool.map(partial(invoke, replica), [token] * 8)]
    assert own_redis.child is not None
    if frozen:
        own_redis.child.send_signal(signal.SIGSTOP)
    else:
        own_redis.stop()
    try:
        for replica in (first, second):
            _count_alone(replica, token)
    finally:
        if frozen:
            own_redis.child.send_signal(signal.SIGCONT)


def _count_alone(replica: Replica, token: str) -> None:
    with ThreadPoolExecutor(8) as pool:  # many find out at once
        answers = list(pool.map(partial(invoke, replica), [token] * 20))
    statuses = [answer.status_code for answer in answers]
    assert (
        set(statuses) == {200, 429} and statuses.count(200) <= 11
    )  # at the edge of a minute one more passes
    assert answers[-1].headers["RateLimit-Limit"] == "10"
    assert replica.metric("slipway_limiter_fallback") == 1


def test_threads_that_lose_redis_together_all_fall_back(pair: tuple[Replica, Replica, str]) -> None:
    """Flask-Limiter alone lets only the first of them, and gives the others the error."""
    first, _, token = pair
    together = threading.Barrier(2, timeout=10)
    met: list[int] = []

    def lost(*_: object, **options: object) -> None:
        met.append(1)
        if len(met) <= 2:
            together.wait()
        raise redis.ConnectionError("gone")

    first.redis_store.attempt = lost  # type: ignore[method-assign]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(partial(invoke, first), [token] * 2))
    assert [answer.status_code for answer in answers] == [200, 200]


def test_limits_are_shared_again_once_redis_is_back(
    pair: tuple[Replica, Replica, str], own_redis: RedisServer
) -> None:
    first, second, token = pair
    own_redis.stop()
    for replica in (first, second):
        assert invoke(replica, token).status_code == 200
    own_redis.start()

    def shared(replica: Replica) -> bool:
        invoke(replica, token)
        return replica.metric("slipway_limiter_fallback") == 0

    for replica in (first, second):
        wait_until(partial(shared, replica), "the shared limit")
    first.redis_store.client.flushall()
    statuses = [invoke((first, second)[number % 2], token).status_code for number in range(12)]
    assert statuses == [200] * 10 + [429] * 2


def test_limits_are_shared_with_the_first_call_after_redis_is_back(
    pair: tuple[Replica, Replica, str], own_redis: RedisServer
) -> None:
    """Flask-Limiter alone looks again after up to 32 seconds."""
    first, _, token = pair
    own_redis.stop()
    assert invoke(first, token).status_code == 200
    assert first.metric("slipway_limiter_fallback") == 1
    own_redis.start()
    wait_until(lambda: first.redis_store.check() == "", "Redis")
    assert invoke(first, token).status_code == 200
    assert first.metric("slipway_limiter_fallback") == 0


def test_an_ended_log_in_without_redis(pair: tuple[Replica, Replica, str], own_redis: RedisServer) -> None:
    first, second, kept = pair
    ended = first.login()["access_token"]
    own_redis.stop()
    assert first.client(ended).post("/v1/auth/logout").status_code == 204
    for replica in (first, second):
        assert (invoke(replica, ended).status_code, invoke(replica, kept).status_code) == (401, 200)
