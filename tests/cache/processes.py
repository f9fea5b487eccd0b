"""Single flight between two processes in miniature: each has its own connections and its own watching thread."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import pytest

from service.agents.spec import CacheSpec
from service.cache.answers import AnswerCache
from service.cache.entries import CacheKey
from service.cache.lookup import Lookup
from service.cache.single_flight import SingleFlight
from service.ids import new_id
from service.infra.redis import RedisStore
from service.infra.redis_client import connect
from service.infra.redis_trip import Trip
from service.types import Run
from tests.conftest import RedisServer, wait_until
from tests.runs.house import ADA, ASSISTANT, PLAIN, asked, run_of

SPEC = CacheSpec(ttl_seconds=60, stale=True)
WAITERS = 40


class Process:
    """One process's worth of single flight."""

    def __init__(self, url: str, stack: ExitStack, *, connections: int = 2) -> None:
        self.redis_store = stack.enter_context(closing(RedisStore(url, max_connections=8)))
        self.blocking = stack.enter_context(closing(connect(url, max_connections=connections)))
        self.cache = AnswerCache(self.redis_store, PLAIN)
        self.flights = SingleFlight(self.redis_store, self.blocking, self.cache, 60)

    def question(self, text: str) -> CacheKey:
        return self.cache.question(ASSISTANT, asked(text), ADA, "m")

    def turn(self, text: str, **run: Any) -> Lookup:
        return self.look_up(run_of(asked(text), **run), self.question(text))

    def look_up(self, run: Run, question: CacheKey | None) -> Lookup:
        trip, turn = Trip(self.redis_store), Lookup(self.flights, run, question, SPEC)
        turn.ask(trip)
        trip.send()
        turn.read()
        return turn

    def die(self) -> None:
        """As after `kill -9`, as far as others can see: nothing is renewed any more."""
        self.flights._owned.clear()


@pytest.fixture
def url(redis_server: RedisServer) -> str:
    return redis_server.url


@pytest.fixture
def pair(url: str) -> Iterator[tuple[Process, Process]]:
    with ExitStack() as stack:
        yield Process(url, stack), Process(url, stack)


@pytest.fixture
def text() -> str:
    return f"What is it {new_id('x')}?"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead leader is missed at once."""
    monkeypatch.setattr("service.cache.answers.FLIGHT_MS", 600)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(WAITERS) as threads:
        yield threads


def join(turn: Lookup, seconds: float = 30.0) -> Lookup:
    for _ in turn.join(0.2, time.monotonic() + seconds):
        pass
    return turn


def finish(turn: Lookup) -> None:
    trip = Trip(turn._single_flight._redis_store)
    turn.end(trip)
    trip.send()


def waiting(process: Process) -> int:
    return sum(awaited.waiting for awaited in process.flights._awaited.values())


def crowd(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str, count: int = WAITERS
) -> list[Future[Lookup]]:
    """Many who wait, in both processes."""
    turns = [pair[number % 2].turn(text) for number in range(count)]
    joined = [pool.submit(join, turn) for turn in turns]
    wait_until(lambda: sum(map(waiting, pair)) == count, "all of them waiting")
    return joined
