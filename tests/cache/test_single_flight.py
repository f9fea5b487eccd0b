"""Single flight between two processes in miniature."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from service.errors import RunTimeout
from tests.cache.processes import WAITERS, Process, crowd, finish, join, pair, pool, soon, text, url, waiting
from tests.conftest import RedisServer, wait_until
from tests.exhausted import no_threads
from tests.runs.house import answered, asked, run_of

__all__ = ["pair", "pool", "soon", "text", "url"]


def test_all_waiters_get_the_owners_answer(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    assert first.owner is None and first.answer is None and first.run.cache == "miss"
    joined = crowd(pool, pair, text)
    answered(first.run, "Told once.")
    finish(first)
    for turn in (future.result(60) for future in joined):
        assert turn.answer is not None and turn.answer["output"] == "Told once."
        assert turn.run.cache == "coalesced"
    assert pair[1].turn(text).run.cache == "hit"
    assert [process.flights._awaited for process in pair] == [{}, {}]
    assert pair[0].flights._owned == {}


def test_thread_that_could_not_start_starts_later(
    pool: ThreadPoolExecutor, pair: tuple[Process, Process], text: str
) -> None:
    first = pair[0].turn(text)
    with no_threads(), pytest.raises(RuntimeError):
        join(pair[1].turn(text))
    assert pair[1].flights._awaited == {}
    joined = pool.submit(join, pair[1].turn(text))
    answered(first.run, "Told once.")
    finish(first)
    assert joined.result(60).answer is not None


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
        wait_until(lambda: waiting(process) == WAITERS, "all of them waiting")
        before = commands(process)
        time.sleep(2)
        assert commands(process) - before < 150  # two looks a second at eight flights, not at forty waiters
        for lead in leads:
            answered(lead.run)
            finish(lead)
        assert all(future.result(60).answer for future in joined)


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
    assert all(future.result(60).run.cache == "coalesced" for future in joined)


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
    assert all(future.result(60).answer for future in joined)


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
    wait_until(lambda: not flights._owned, "the end of its renewal")
    wait_until(lambda: pair[1].turn(text).owner is None, "another's turn")


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
