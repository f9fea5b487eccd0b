"""Redis store with Redis up, frozen and gone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from service.infra.redis import RedisStore
from tests.conftest import RedisServer, redis_in, wait_until


@pytest.fixture
def server(scratch: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with redis_in(scratch / f"c{abs(hash(request.node.nodeid)) % 10**8}") as running:
        yield running


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    made = RedisStore(server.url, max_connections=4)
    yield made
    made.close()


def test_call_returns_the_redis_reply(store: RedisStore) -> None:
    assert store.call(lambda client: client.incr("n"), 0) == 1
    assert store.available() and store.server


def test_a_store_that_went_away_is_asked_again_but_not_by_everybody(
    store: RedisStore, server: RedisServer
) -> None:
    heard: list[bool] = []
    store._on_change = heard.append
    store.call(lambda client: client.ping(), None)
    server.stop()
    asked: list[int] = []

    def ask(client: redis.Redis) -> bool:
        asked.append(1)
        return bool(client.ping())

    assert [store.call(ask, "default") for _ in range(50)] == ["default"] * 50
    assert len(asked) == 1 and not store.available()
    server.start()
    wait_until(lambda: store.call(ask, False), "Redis")
    assert store.available() and heard == [False, True]


def test_a_frozen_redis_is_given_up(store: RedisStore, server: RedisServer) -> None:
    store.call(lambda client: client.ping(), None)
    assert server.child is not None
    server.child.send_signal(signal.SIGSTOP)
    try:
        assert store.call(lambda client: client.ping(), "default") == "default"
        assert not store.available()
    finally:
        server.child.send_signal(signal.SIGCONT)


def test_an_error_of_ours_is_no_outage(store: RedisStore) -> None:
    store.call(lambda client: client.set("text", "x"), None)
    assert store.call(lambda client: client.hget("text", "field"), "default") == "default"
    assert store.available()


def test_the_server_is_known_by_its_run_id(store: RedisStore, server: RedisServer) -> None:
    store.call(lambda client: client.ping(), None)
    before = store.server
    server.stop()
    server.start()
    wait_until(lambda: store.call(lambda client: client.ping(), False), "Redis")
    assert len(before) == len(store.server) == 40 and before != store.server


def test_a_cluster_has_no_server_that_is_known() -> None:
    """Its commands go over many connections, so what sends them is told of none."""
    assert RedisStore("redis+cluster://127.0.0.1:1", max_connections=2).server_of(None) == ""


def test_more_threads_than_connections_wait_for_one_another(store: RedisStore) -> None:
    results: list[object] = []

    def many() -> None:
        results.extend(store.call(lambda client: client.incr("n"), None) for _ in range(50))

    threads = [threading.Thread(target=many) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == list(range(1, 601))  # type: ignore[type-var]
