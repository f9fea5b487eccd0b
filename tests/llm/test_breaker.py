from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.errors import ModelUnavailable
from service.llm.breaker import Breaker


class Clock:
    """The library's clock, moved by hand."""

    def __init__(self) -> None:
        self.now = float(int(time.monotonic()))  # whole: the library rounds up, a rounding error too

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("circuitbreaker.monotonic", clock)
    return clock


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("model", failures=3, recovery=10)


def trip(breaker: Breaker, times: int = 3) -> None:
    for _ in range(times):
        breaker.record_failure(breaker.allow())


def refused(breaker: Breaker) -> bool:
    try:
        breaker.release(breaker.allow())
    except ModelUnavailable:
        return True
    return False


def test_consecutive_failures_open_the_breaker(breaker: Breaker) -> None:
    trip(breaker, 2)
    breaker.record_success(breaker.allow())
    trip(breaker, 2)
    assert breaker.state == "closed" and breaker.retry_after == 0
    trip(breaker, 1)
    assert breaker.state == "open"
    with pytest.raises(ModelUnavailable) as caught:
        breaker.allow()
    assert caught.value.retry_after == 10 == breaker.retry_after


def test_neutral_ends_do_not_count_either_way(breaker: Breaker) -> None:
    trip(breaker, 2)
    breaker.release(breaker.allow())
    trip(breaker, 1)
    assert breaker.state == "open"


def test_one_probe_goes_through_when_half_open(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += 10
    assert breaker.state == "half_open" and breaker.retry_after == 0
    start = threading.Barrier(32)

    def try_it(_: int) -> bool:
        start.wait(30)
        try:
            return breaker.allow().probe
        except ModelUnavailable:
            return False

    with ThreadPoolExecutor(32) as pool:
        assert sum(pool.map(try_it, range(32))) == 1
    assert breaker.retry_after == 1


def test_successful_probe_closes_the_breaker(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += 10
    breaker.record_success(breaker.allow())
    assert breaker.state == "closed"
    trip(breaker, 2)
    assert breaker.state == "closed", "the count began anew"


def test_failed_probe_reopens_the_breaker_for_the_full_time(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += 10
    breaker.record_failure(breaker.allow())
    assert (breaker.state, breaker.retry_after) == ("open", 10)
    clock.now += 10
    assert not refused(breaker)


def test_a_probe_without_a_verdict_lets_the_next_one_try(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += 10
    breaker.release(breaker.allow())
    assert breaker.allow().probe


def test_those_from_before_the_trip_have_no_say(breaker: Breaker, clock: Clock) -> None:
    late = [breaker.allow() for _ in range(3)]
    trip(breaker)
    breaker.record_success(late[0])
    assert breaker.state == "open"
    clock.now += 6
    breaker.record_failure(late[1])
    assert breaker.retry_after == 4, "a late failure does not make the pause longer"
    clock.now += 4
    probe = breaker.allow()
    breaker.release(late[2])
    assert refused(breaker), "nor does a late end free the place of the probe"
    breaker.record_success(probe)
    assert breaker.state == "closed"


def test_a_probe_s_later_end_has_no_say(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += 10
    probe = breaker.allow()
    breaker.record_success(probe)
    trip(breaker, 2)
    breaker.record_success(probe)
    trip(breaker, 1)
    assert breaker.state == "open"


def test_threads_count_every_failure() -> None:
    breaker = Breaker("model", failures=1000, recovery=10)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda _: trip(breaker, 1), range(999)))
    assert breaker.state == "closed"
    trip(breaker, 1)
    assert breaker.state == "open"
