"""Single flight between two processes in miniature: each has its own connections and its own watching thread."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from service.agents.spec import CacheSpec
from service.cache import single_flight
from service.cache.answers import AnswerCache
from service.cache.entries import CacheKey
from service.cache.lookup import Lookup
from service.cache.single_flight import SingleFlight
from service.errors import ModelRejected, ModelUnavailable, RunTimeout
from service.infra.redis import RedisStore
from service.infra.redis_client import connect
from service.infra.redis_trip import Trip
from service.types import Run, RunStatus, new_id
from tests.conftest import RedisServer, redis_in, wait_until
from tests.runs.house import ADA, ASSISTANT, PLAIN, answered, asked, failed, run_of

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
    wait_until(lambda: sum(map(waiting, pair)) == count, "all of them waiting", 10)
    return joined


def test_all_waiters_get_the_owners_answer(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    assert first.owner is None and first.answer is None and first.run.cache == "miss"
    joined = crowd(pool, pair, text)
    answered(first.run, "Told once.")
    finish(first)
    for turn in (future.result(10) for future in joined):
        assert turn.answer is not None and turn.answer["output"] == "Told once."
        assert turn.run.cache == "coalesced"
    assert pair[1].turn(text).run.cache == "hit"
    assert [process.flights._awaited for process in pair] == [{}, {}]
    assert pair[0].flights._owned == {}


def test_waiting_takes_one_connection_however_many_wait(
    pool: ThreadPoolExecutor, url: str, text: str, redis_server: RedisServer
) -> None:
    with ExitStack() as stack:
        process = Process(url, stack, connections=1)
        leads = [process.turn(f"{text} {number}") for number in range(8)]
        joined = [
            pool.submit(join, process.turn(f"{text} {number}"))
            for number in range(8)
            for _ in range(WAITERS // 8)
        ]
        wait_until(lambda: waiting(process) == WAITERS, "all of them waiting", 10)
        before = commands(process)
        time.sleep(2)
        assert commands(process) - before < 150  # two looks a second at eight flights, not at forty waiters
        for lead in leads:
            answered(lead.run)
            finish(lead)
        assert all(future.result(10).answer for future in joined)


def commands(process: Process) -> int:
    return int(process.redis_store.client.info("stats")["total_commands_processed"])


def test_a_flight_outlasts_its_first_lease(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    joined = crowd(pool, pair, text, 4)
    time.sleep(7)  # renewed meanwhile
    assert not any(future.done() for future in joined)
    answered(first.run)
    finish(first)
    assert all(future.result(10).run.cache == "coalesced" for future in joined)


def test_a_leader_that_dies_hands_over(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str, soon: None
) -> None:
    first = pair[0].turn(text)
    assert first.owner is None
    finished: list[Lookup] = []
    asked_the_model: list[Run] = []

    def ask(turn: Lookup) -> None:
        join(turn)
        if turn.answer is None:
            asked_the_model.append(turn.run)
            time.sleep(0.3)
            answered(turn.run, "From the heir.")
        finish(turn)
        finished.append(turn)

    turns = [pair[number % 2].turn(text) for number in range(10)]
    futures = [pool.submit(ask, turn) for turn in turns]
    pair[0].die()
    for future in futures:
        future.result(20)
    assert len(asked_the_model) == 1
    assert {turn.answer["output"] for turn in finished if turn.answer} == {"From the heir."}


def end_each(
    pool: ThreadPoolExecutor, futures: list[Future[Lookup]], end: Callable[[Run], object]
) -> list[Any]:
    """Whoever leads next ends so too; what the others got, and the run of each that led."""
    outcomes: list[Any] = []
    lock = threading.Lock()

    def follow(future: Future[Lookup]) -> None:
        try:
            turn = future.result(20)
        except Exception as error:
            with lock:
                outcomes.append(error)
            return
        if turn.answer is None:
            end(turn.run)
            finish(turn)
        with lock:
            outcomes.append(turn)

    followers = [threading.Thread(target=follow, args=(future,)) for future in futures]
    for follower in followers:
        follower.start()
    for follower in followers:
        follower.join(20)
    return outcomes


def test_a_second_leader_is_tried_and_no_third(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    joined = crowd(pool, pair, text, 12)
    failed(first.run, "model_unavailable", "No.")
    finish(first)
    outcomes = end_each(pool, joined, lambda run: failed(run, "model_unavailable", "No again."))
    errors = [outcome for outcome in outcomes if isinstance(outcome, ModelUnavailable)]
    led = [outcome for outcome in outcomes if isinstance(outcome, Lookup)]
    assert (len(errors), len(led)) == (11, 1)
    assert {error.detail for error in errors} == {"No again."}
    assert pair[0].turn(text).owner is None  # who comes after that tries anew


def test_permanent_failure_is_shared_without_a_retry(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    joined = crowd(pool, pair, text, 6)
    failed(first.run, "model_rejected", "No.")
    finish(first)
    assert all(isinstance(future.exception(10), ModelRejected) for future in joined)


def test_cancel_or_budget_of_the_owner_does_not_end_the_waiters(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    joined = crowd(pool, pair, text, 6)
    first.run.status = RunStatus.CANCELLED
    finish(first)
    outcomes = end_each(pool, joined, lambda run: failed(run, "budget_exceeded"))
    assert all(isinstance(outcome, Lookup) and outcome.answer is None for outcome in outcomes)


def test_an_answer_after_a_first_failure(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    joined = crowd(pool, pair, text, 12)
    failed(first.run, "model_error")
    finish(first)
    outcomes = end_each(pool, joined, lambda run: answered(run, "After all."))
    assert [turn.answer["output"] for turn in outcomes if turn.answer] == ["After all."] * 11


def test_waiters_get_the_stale_answer_when_the_model_is_unavailable(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    kept = pair[0].turn(text)
    answered(kept.run, "Old.")
    finish(kept)
    about = pair[0].question(text)
    raw: Any = pair[0].redis_store.client.get(about.answer)
    _, rest = raw.split(b" ", 1)
    pair[0].redis_store.client.set(about.answer, b"1 " + rest)
    first = pair[0].turn(text)
    assert first.run.cache == "miss" and first.stale is not None
    joined = crowd(pool, pair, text, 6)
    failed(first.run, "model_unavailable")
    finish(first)
    outcomes = end_each(pool, joined, lambda run: failed(run, "model_unavailable"))
    assert [turn.run.cache for turn in outcomes if turn.answer] == ["stale"] * 5
    assert not any(isinstance(outcome, ModelUnavailable) for outcome in outcomes)


def test_ones_deadline_does_not_end_the_others(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    joined = crowd(pool, pair, text, 4)
    with pytest.raises(RunTimeout):
        join(pair[0].turn(text), seconds=0.3)
    waits = pair[1].turn(text).join(0.05, time.monotonic() + 30)
    next(waits)
    waits.close()  # type: ignore[attr-defined]  # its client has gone
    assert sum(map(waiting, pair)) == 4
    answered(first.run)
    finish(first)
    assert all(future.result(10).answer for future in joined)


def test_redis_gone_ends_the_waiting(pool: ThreadPoolExecutor, scratch: Path, text: str) -> None:
    with redis_in(scratch / "flight") as server, ExitStack() as stack:
        pair = Process(server.url, stack), Process(server.url, stack)
        first = pair[0].turn(text)
        joined = crowd(pool, pair, text, 6)
        server.kill()
        for turn in (future.result(20) for future in joined):
            assert (turn.answer, turn.owner, turn.run.cache) == (None, None, "bypass")
        answered(first.run)
        finish(first)
        assert pair[0].turn(text).run.cache == "bypass"


def test_a_wiped_redis_elects_anew(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    joined = crowd(pool, pair, text, 6)
    pair[0].redis_store.client.delete(pair[0].question(text).flight)
    outcomes = end_each(pool, joined, lambda run: answered(run, "Again."))
    assert [turn.answer["output"] for turn in outcomes if turn.answer] == ["Again."] * 5
    finish(first)


def test_refresh_and_bypass_neither_own_nor_wait(pair: tuple[Process, Process], text: str) -> None:
    process = pair[0]
    first = process.turn(text)
    request = asked(text, cache="refresh")
    fresh = process.look_up(run_of(request), process.question(text))
    assert (fresh.owner, fresh.run.cache) == (None, "miss")
    answered(fresh.run, "Fresh.")
    finish(fresh)
    assert pair[1].turn(text).answer == process.turn(text).answer is not None
    nothing = process.look_up(run_of(asked(text)), None)
    assert (nothing.owner, nothing.answer, nothing.run.cache) == (None, None, "bypass")
    finish(first)


def test_a_forgotten_flight_ends(pair: tuple[Process, Process], text: str, soon: None) -> None:
    flights = pair[0].flights
    flights._seconds = 0.1
    pair[0].turn(text)
    wait_until(lambda: not flights._owned, "the end of its renewal", 5)
    assert single_flight.RENEWAL < 5
    wait_until(lambda: pair[1].turn(text).owner is None, "another's turn", 5)


def test_flights_land_while_others_are_renewed(
    pair: tuple[Process, Process], text: str, restless: None, caplog: pytest.LogCaptureFixture
) -> None:
    one, _ = pair
    turns = [one.turn(f"{text} {number}") for number in range(400)]
    with ThreadPoolExecutor(1) as pool:
        landing = pool.submit(lambda: [finish(turn) for turn in turns])
        while not landing.done():
            one.flights._renewed = 0.0
            one.flights._renew()
    landing.result()
    assert one.flights._owned == {}
    assert "single_flight_failed" not in caplog.text


def test_leaders_that_die_one_after_the_other_have_one_heir_each(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str, soon: None
) -> None:
    first = pair[0].turn(text)
    asked_the_model: list[Run] = []
    finished: list[Lookup] = []

    def ask(turn: Lookup) -> None:
        join(turn)
        if turn.answer is None:
            asked_the_model.append(turn.run)
            if len(asked_the_model) < 4:  # it dies too: its flight is led no more, and never lands
                for process in pair:
                    process.die()
                return
            time.sleep(0.3)
            answered(turn.run, "From the fourth.")
        finish(turn)
        finished.append(turn)

    turns = [pair[number % 2].turn(text) for number in range(20)]
    futures = [pool.submit(ask, turn) for turn in turns]
    assert first.owner is None
    pair[0].die()
    for future in futures:
        future.result(30)
    assert len(asked_the_model) == 4
    assert [turn.answer["output"] for turn in finished if turn.answer] == ["From the fourth."] * 16


def test_a_redis_that_is_slow_for_a_moment_ends_no_waiting(
    pool: ThreadPoolExecutor, scratch: Path, text: str
) -> None:
    with redis_in(scratch / "slow") as server, ExitStack() as stack:
        pair = Process(server.url, stack), Process(server.url, stack)
        first = pair[0].turn(text)
        joined = crowd(pool, pair, text, 20)
        assert server.child is not None
        os.kill(server.child.pid, signal.SIGSTOP)
        for process in pair:  # some other request meets it, and Redis is left alone for a second
            assert process.redis_store.call(lambda client: client.get("x"), default=b"away") == b"away"
        os.kill(server.child.pid, signal.SIGCONT)
        wait_until(
            lambda: pair[0].redis_store.call(lambda client: client.ping(), default=False), "Redis again", 10
        )
        answered(first.run, "One.")
        finish(first)
        assert [turn.answer and turn.answer["output"] for turn in (f.result(20) for f in joined)] == [
            "One."
        ] * 20
