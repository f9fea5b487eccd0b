"""Round trips that several parts share: order, stops, failures, and Redis away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.errors import InvalidToken, RateLimited
from service.infra.redis import RedisStore
from service.infra.redis_client import Script
from service.infra.redis_trip import ScriptCall, Trip
from tests.conftest import RedisServer, redis_in

ADD = Script("return redis.call('RPUSH', KEYS[1], ARGV[1])")
STOP = Script("return {'stopped', KEYS[1], ARGV[1]}, true")
FAIL = Script("return redis.call('INCR', KEYS[1])")
NONE = Script("return redis.call('GET', KEYS[1])")


@pytest.fixture
def store(scratch: Path, redis_server: RedisServer) -> Iterator[RedisStore]:
    with closing(RedisStore(redis_server.url, max_connections=2)) as redis_store:
        redis_store.client.delete("trip", "nothing")
        yield redis_store


def sent(store: RedisStore, *steps: ScriptCall) -> tuple[ScriptCall, ...]:
    trip = Trip(store)
    trip.add(*steps)
    trip.send()
    return steps


def add(value: str) -> ScriptCall:
    return ScriptCall(ADD, ("trip",), (value,))


def kept(store: RedisStore) -> list[bytes]:
    found: Any = store.client.lrange("trip", 0, -1)
    return list(found)


def test_steps_run_in_order_until_one_stops_the_rest(store: RedisStore) -> None:
    steps = sent(
        store,
        add("a"),
        ScriptCall(NONE, ("nothing",), ()),
        add("b"),
        ScriptCall(STOP, ("k",), ("v",)),
        add("c"),
    )
    assert [step.answer for step in steps] == [1, None, 2, [b"stopped", b"k", b"v"], None]
    assert [step.reached for step in steps] == [True] * 4 + [False]
    assert kept(store) == [b"a", b"b"]


def test_a_trip_that_was_sent_is_empty_and_takes_others(store: RedisStore) -> None:
    trip = Trip(store)
    trip.send()
    for value in ("a", "b"):
        trip.add(add(value))
        trip.send()
    trip.send()
    assert kept(store) == [b"a", b"b"]


def test_a_step_that_fails_stops_nothing_and_is_logged(
    store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    first, failed, last = sent(store, add("a"), ScriptCall(FAIL, ("trip",), ()), add("b"))
    assert (first.answer, failed.answer, failed.reached, last.answer) == (1, None, True, 2)
    assert [record.getMessage() for record in caplog.records] == ["redis_refused"]


def test_the_first_refusal_is_raised_and_what_was_run_is_read(store: RedisStore) -> None:
    read: list[Any] = []

    def refuse(answer: Any) -> None:
        raise InvalidToken

    def limit(answer: Any) -> None:
        read.append(answer)
        raise RateLimited

    with pytest.raises(InvalidToken):
        sent(
            store,
            ScriptCall(ADD, ("trip",), ("a",), refuse),
            ScriptCall(ADD, ("trip",), ("b",), limit),
            ScriptCall(STOP, ("k",), ("v",), read.append),
            ScriptCall(ADD, ("trip",), ("c",), read.append),
        )
    assert read == [2, [b"stopped", b"k", b"v"]]


def test_without_redis_each_step_has_no_answer_up_to_a_refusal(scratch: Path) -> None:
    def refuse(answer: Any) -> None:
        raise RateLimited

    with closing(RedisStore(f"unix://{scratch}/nobody.sock", max_connections=2)) as nowhere:
        steps = add("a"), ScriptCall(ADD, ("trip",), ("b",), refuse), add("c")
        with pytest.raises(RateLimited):
            sent(nowhere, *steps)
    assert [(step.reached, step.answer) for step in steps] == [(True, None), (True, None), (False, None)]


def test_a_replica_ends_the_trip_and_opens_the_circuit(scratch: Path) -> None:
    with (
        redis_in(scratch / "replica", "--save", "", "--replicaof", "127.0.0.1", "1") as server,
        closing(RedisStore(server.url, max_connections=2)) as store,
    ):
        steps = sent(store, ScriptCall(NONE, ("nothing",), ()), add("a"))
        assert [step.answer for step in steps] == [None, None]
        assert not store.available() and store.check() == "read-only"
