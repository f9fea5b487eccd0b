"""Retry policy, and which errors it is for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from slipway_client.errors import Refusal, error_of, seconds_of
from slipway_client.retry import LONGEST_RETRY_AFTER, Retry, reconnect_pause

from service.error_table import all_errors, is_retryable

AFTER = st.none() | st.floats(0, LONGEST_RETRY_AFTER)
CHANCE = st.floats(0, 1, exclude_max=True)


@given(st.lists(st.tuples(AFTER, CHANCE), min_size=20, max_size=20))
def test_retries_are_bounded_in_number_and_time_and_never_before_retry_after(
    given_: list[tuple[float | None, float]],
) -> None:
    policy, paused, tries = Retry(retries=6, seconds=90), 0.0, 0
    for after, chance in given_:
        tries += 1
        pause = policy.pause(tries, paused, after, chance)
        if pause is None:
            break
        assert pause >= (after or 0)
        paused += pause
    assert tries <= 7 and paused <= 90


def test_pauses_grow_and_are_spread() -> None:
    policy = Retry(retries=9, seconds=1000)
    assert [policy.pause(tries, 0, None, 0.999) for tries in range(1, 8)] == pytest.approx(
        [0.5, 1, 2, 4, 8, 15, 15], rel=0.01
    )
    assert policy.pause(1, 0, None, 0.0) == 0.25


def test_a_server_that_asks_for_much_time_is_told_to_the_caller() -> None:
    assert Retry().pause(1, 0, LONGEST_RETRY_AFTER + 1, 0.5) is None


@given(st.integers(0, 1000), AFTER, CHANCE)
def test_reconnects_pause_between_a_second_and_retry_after(
    quiet: int, after: float | None, chance: float
) -> None:
    assert max(0.75, after or 0) <= reconnect_pause(quiet, after, chance) <= max(15, after or 0)


@pytest.mark.parametrize("error", all_errors(), ids=lambda error: error.code)
def test_an_error_is_retryable_where_the_table_of_errors_says_so(error: type) -> None:
    made = error_of(Refusal(error.status, {"code": error.code, "detail": ""}, ""))
    assert made.retryable == is_retryable(error)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        (" 0 ", 0.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("1e9", None),
        ("٣", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
        ("9" * 30, None),
    ],
)
def test_retry_after_is_whole_seconds_or_nothing(header: str | None, seconds: float | None) -> None:
    assert seconds_of(header) == seconds
