"""Caps: setting them, their windows and stripes, and the warnings."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime
from typing import get_args

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from service.errors import BudgetExceeded
from service.store.budgets import BudgetWindow
from service.store.schema import caps
from service.types import NANO, Usage
from service.usage.caps import NO_LIMIT, Standing, distribute, level, nano_of, window_end, window_start
from tests.twice import Way, write_twice
from tests.usage.conftest import Make
from tests.usage.house import CENT, a_run, at_once


def ms(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp() * 1000)  # type: ignore[arg-type, misc]


@pytest.mark.parametrize(
    ("period", "at", "start", "end"),
    [
        ("day", ms(2026, 11, 21, 7, 30), ms(2026, 11, 21), ms(2026, 11, 22)),
        ("day", ms(2026, 11, 21), ms(2026, 11, 21), ms(2026, 11, 22)),
        ("month", ms(2026, 12, 31, 23, 59), ms(2026, 12, 1), ms(2027, 1, 1)),
        ("month", ms(2028, 2, 29), ms(2028, 2, 1), ms(2028, 3, 1)),
        ("total", ms(2026, 11, 21), 0, None),
    ],
)
def test_windows(period: str, at: int, start: int, end: int | None) -> None:
    assert window_start(period, at) == start
    assert window_end(BudgetWindow("service", period, start)) == end


def test_amounts() -> None:
    assert nano_of("1.00") == NANO and nano_of("0.000000001") == 1 and nano_of("0") == 0
    for wrong in (
        *("", "one", "-1", "nan", "inf", "1e30", "0.0000000001", "1,5"),
        *("١٢", "１２.50", "²", "1_000", " 1", "9e999999"),
    ):
        with pytest.raises(ValueError):
            nano_of(wrong)


@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**12), min_size=1, max_size=9))
def test_shares_sum_to_the_cap_and_cover_commitments(cap: int, committed: list[int]) -> None:
    shares = distribute(cap, committed)
    assert sum(shares) == cap
    if cap >= sum(committed):
        assert all(share >= mine for share, mine in zip(shares, committed, strict=True))


def test_levels() -> None:
    assert [level(spent, 200) for spent in (0, 99, 100, 159, 160, 199, 200, 900)] == [
        0,
        0,
        50,
        50,
        80,
        80,
        100,
        100,
    ]
    assert level(0, 0) == 0


def test_cap_set_mid_window_counts_earlier_spend_and_holds(make: Make) -> None:
    house = make(patience=0)
    run = a_run(key="key_1", session="ses_1")
    house.spend(Usage(0, 300), run)
    house.spend(Usage(0, 700), a_run("usr_bob"))
    held = house.reserve(run)
    for scope in ("key:key_1", "session:ses_1", "user:usr_ada", "agent:support", "service"):
        for period in ("day", "month", "total"):
            state = house.budgets.put(scope, period, CENT * 14 // 10)  # type: ignore[arg-type]
            others = 7_000_000 if scope in ("service", "agent:support") else 0
            assert (state.spent, state.held) == (3_000_000 + others, CENT)
    with pytest.raises(BudgetExceeded):
        house.reserve(run)
    house.settle(held, Usage(0, 10))
    assert house.figures("key:key_1", "total") == (3_100_000, 0)
    assert house.check().faults == []


def test_cap_below_the_spent_amount_refuses_further_calls(make: Make) -> None:
    house = make(user_day=NANO, service_day=NANO, patience=0)
    house.spend(Usage(0, 800))
    held = house.reserve()
    state = house.budgets.put("service", "day", CENT)
    assert (state.spent, state.held, state.left) == (8_000_000, CENT, 0)
    with pytest.raises(BudgetExceeded):
        house.reserve()
    house.settle(held, Usage(0, 300))
    house.budgets.put("service", "day", 2 * CENT)
    assert house.reserve(fewest=700).max_tokens == 700
    assert house.check().faults == []


def test_a_lifted_cap_goes_on_counting(make: Make) -> None:
    house = make(user_day=CENT, patience=0)
    house.spend(Usage(0, 800))
    state = house.budgets.put("user:usr_ada", "day", None)
    assert state.cap.amount == NO_LIMIT and state.public()["amount_usd"] is None
    for _ in range(3):
        house.spend(Usage(0, 800))
    assert house.budgets.put("user:usr_ada", "day", CENT).spent == 4 * 8_000_000
    with pytest.raises(BudgetExceeded):
        house.reserve()
    assert house.check().faults == []


def test_a_cap_of_its_own_replaces_the_default(make: Make) -> None:
    house = make(user_day=CENT, patience=0)
    house.budgets.put("user:usr_ada", "day", 3 * CENT)
    for _ in range(3):
        house.spend(Usage(0, 800))
    with pytest.raises(BudgetExceeded):
        house.reserve(a_run("usr_bob"), max_tokens=2_000, fewest=2_000)
    [state] = house.budgets.of(["user:usr_ada"])
    assert not state.cap.default and state.spent == 24_000_000
    [state] = house.budgets.of(["user:usr_bob"])
    assert state.cap.default and state.left == CENT


def test_every_level_is_warned_of_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    house, other = make(user_day=10 * CENT, patience=0), make(user_day=10 * CENT, patience=0)
    caplog.set_level("INFO", "slipway.money")

    def spend(number: int) -> None:
        with contextlib.suppress(BudgetExceeded):
            (house if number % 2 else other).spend(Usage(0, 800), fewest=800)

    at_once(5, spend)
    assert [warning["percent"] for warning in house.warnings + other.warnings] == []
    for number in range(20):
        spend(number)
    told = [warning["percent"] for warning in house.warnings + other.warnings]
    assert sorted(told) == [50, 80, 100]
    logged = [record for record in caplog.records if record.getMessage() == "budget_warning"]
    assert sorted(record.percent for record in logged) == [50, 80, 100]  # type: ignore[attr-defined]
    assert {record.scope for record in logged} == {"user:usr_ada"}  # type: ignore[attr-defined]
    rendered = (house.metrics.render()[0] + other.metrics.render()[0]).decode()
    assert len(re.findall(r'budget_warnings_total\{percent="\d+",scope="user"\} 1.0', rendered)) == 3


@pytest.mark.parametrize("way", get_args(Way))
def test_every_level_is_warned_of_where_writes_run_twice(
    make: Make, way: Way, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house = make(user_day=10 * CENT, patience=0)
    caplog.set_level("INFO", "slipway.money")
    write_twice(way, monkeypatch)
    with pytest.raises(BudgetExceeded):
        for _ in range(40):
            house.spend(Usage(0, 800), fewest=800)
    assert [warning["percent"] for warning in house.warnings] == [50, 80, 100]
    assert caplog.messages.count("budget_warning") == 3


def test_a_wide_cap_warns_of_its_whole(make: Make) -> None:
    house = make(service_day=20 * CENT, patience=0)
    for number in range(40):
        try:
            house.spend(Usage(0, 800), a_run(f"usr_{number}"), fewest=800)
        except BudgetExceeded:
            break
        told = [warning["percent"] for warning in house.warnings]  # a little late perhaps, never early
        spent = house.figures("service")[0]
        assert told == [50, 80, 100][: len(told)]
        assert all(spent * 100 >= 20 * CENT * percent for percent in told)
    assert [warning["percent"] for warning in house.warnings] == [50, 80, 100]
    house.budgets.warnings.warn(
        f"service/day/{window_start('day', ms(2026, 11, 21))}"
    )  # not open: nothing happens


def test_all_caps_with_how_they_stand(make: Make) -> None:
    house = make(service_day=NANO, user_day=NANO)
    house.budgets.put("user:usr_ada", "month", 2 * NANO)
    house.budgets.put("agent:support", "day", None)
    house.budgets.put("agent:support-2", "total", NANO)
    shown = house.budgets.page(limit=9, after=None)
    assert (shown[0].cap.id, shown[0].cap.default) == ("service/day", True), "the service's come first"
    assert {state.cap.id for state in shown} == {
        *("service/day", "agent:support/day", "agent:support-2/total", "user:usr_ada/month")
    }
    for size in (1, 2, 3):
        found: list[Standing] = []
        while page := house.budgets.page(limit=size, after=found[-1].cap.id if found else None):
            found += page
        assert found == shown
    house.budgets.put("service", "month", NANO)
    assert [state.cap.id for state in house.budgets.page(limit=2, after=None)] == [
        "service/day",
        "service/month",
    ]


def test_a_page_of_caps_reads_a_page_of_caps(make: Make) -> None:
    """There may be a cap for each of 200,000 sessions."""
    house = make(service_day=NANO)
    cap = {"period": "total", "amount_nano": NANO, "updated_at": 1}
    house.write(
        lambda tx: tx.execute(sa.insert(caps), [{**cap, "scope": f"session:{n:04}"} for n in range(300)])
    )
    read = []
    sa.event.listen(
        house.db.engine,
        "after_cursor_execute",
        lambda *args: read.append(args[2]) if " caps" in args[2] else None,
    )
    [state] = house.budgets.page(limit=1, after="session:0100/total")
    assert state.cap.scope == "session:0101"
    assert read and all("LIMIT" in sql for sql in read)
