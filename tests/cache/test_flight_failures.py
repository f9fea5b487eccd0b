"""Single flight when an owner fails or dies, the model is away, or Redis is slow, gone or wiped."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from service.cache.lookup import Lookup
from service.errors import ModelRejected, ModelUnavailable
from service.infra.redis_trip import Trip
from service.types import Run, RunStatus
from tests.cache.processes import SPEC, Process, crowd, finish, join, pair, pool, soon, text, url
from tests.conftest import redis_in, wait_until
from tests.runs.house import answered, asked, failed, run_of

__all__ = ["pair", "pool", "soon", "text", "url"]


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
    """End each next owner in the same way; return the outcomes of the waiters and the runs of the owners."""
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


def test_a_leader_that_does_not_know_of_its_flight_lands_it(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    """Redis ran its look-up, but the answer came too late."""
    process, trip = pair[0], Trip(pair[0].redis_store)
    first = Lookup(process.flights, run_of(asked(text)), process.question(text), SPEC)
    first.ask(trip)
    trip.send()
    assert first._call is not None
    first._call.answer = None
    first.read()
    assert (first.owner, first.run.cache) == (None, "bypass")
    joined = crowd(pool, pair, text, 6)
    answered(first.run, "From the first.")
    finish(first)
    assert not process.redis_store.client.exists(process.question(text).flight)
    assert all(future.result(60).run.cache == "coalesced" for future in joined)


def test_a_wiped_redis_elects_anew(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    joined = crowd(pool, pair, text, 6)
    pair[0].redis_store.client.delete(pair[0].question(text).flight)
    outcomes = end_each(pool, joined, lambda run: answered(run, "Again."))
    assert [turn.answer["output"] for turn in outcomes if turn.answer] == ["Again."] * 5
    finish(first)


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
