"""Overrides of caps: in force until their end, which the database's clock decides, and then as if they had not been."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import BudgetExceeded, Forbidden
from service.store import caps as cap_rows
from service.types import NANO, Usage, now_ms
from service.usage import caps_in_force
from tests.conftest import wait_until
from tests.twice import WAYS, Way, write_twice
from tests.usage.conftest import Make
from tests.usage.house import CENT, House, a_run, at_once, end_overrides

LATER = 86_400_000  # ms from now
USER = "user:usr_ada"
SCOPES = ["service", "agent:support", USER, "key:key_1", "end_user:key_1/zoë / 7"]


def override(house: House, scope: str, amount: int | None, ms: int = LATER, period: str = "day") -> Any:
    return house.budgets.put(scope, period, amount, until=now_ms() + ms)  # type: ignore[arg-type]


def fits(house: House) -> bool:
    """Whether a call of a cent fits; it costs a thousandth."""
    try:
        house.spend(Usage(0, 1), a_run(key="key_1", end_user="zoë / 7"), fewest=800)
    except BudgetExceeded:
        return False
    return True


def amounts(house: House, scope: str) -> list[tuple[int, bool]]:
    return [(state.cap.amount, state.cap.until is not None) for state in house.budgets.of([scope])]


@pytest.mark.parametrize("scope", SCOPES)
def test_higher_amount_ends_and_what_was_held_stays_held(make: Make, scope: str) -> None:
    house, other = make(patience=0), make(patience=0)
    house.budgets.put(scope, "day", 15 * CENT // 10)
    shown = override(house, scope, 3 * CENT).public()
    assert (shown["amount_usd"], shown["after_usd"]) == ("0.030000", "0.015000") and shown["until"]
    run = a_run(key="key_1", end_user="zoë / 7")
    held = [each.reserve(run, fewest=800) for each in (house, other)]
    end_overrides(house)
    assert not fits(house) and not fits(other)
    [state] = house.budgets.of([scope])
    assert (state.cap.amount, state.cap.until) == (15 * CENT // 10, None)
    assert (state.held, state.left) == (2 * CENT, 0)
    for reserved in held:
        house.settle(reserved, Usage(0, 1))
    assert fits(other)
    assert house.check().faults == []


@pytest.mark.parametrize("scope", SCOPES)
def test_lower_amount_ends(make: Make, scope: str) -> None:
    house, other = make(patience=0), make(patience=0)
    house.budgets.put(scope, "day", 2 * CENT)
    override(house, scope, CENT // 2)
    assert not fits(house) and not fits(other)
    end_overrides(house)
    assert fits(other) and fits(house)
    assert amounts(house, scope) == [(2 * CENT, False)]
    assert house.check().faults == []


@pytest.mark.parametrize("before", ["none", "setting", "default", "lifted"])
def test_what_stood_before_is_back(make: Make, before: str) -> None:
    scope = "end_user:key_1/zoë / 7" if before == "default" else USER
    house = make(patience=0, **({"user_day": CENT} if before == "setting" else {}))
    if before in ("default", "lifted"):
        default = scope if before == "lifted" else "end_user:key_1/*"
        house.budgets.put(default, "day", None if before == "lifted" else CENT)
    stood = [(state.cap, state.window) for state in house.budgets.of([scope])]
    listed = [state.cap for state in house.budgets.page(limit=9, after=None)]
    after = override(house, scope, CENT // 2).public()["after_usd"]
    assert after == ("0.010000" if before in ("setting", "default") else None)
    assert not fits(house)
    end_overrides(house)
    assert fits(house)
    assert [(state.cap, state.window) for state in house.budgets.of([scope])] == stood
    assert [state.cap for state in house.budgets.page(limit=9, after=None)] == listed
    house.budgets.put(scope, "day", CENT)  # counts what was spent meanwhile
    assert house.figures(scope) == (10_000, 0)
    assert house.check().faults == []


def test_override_replaces_an_override_and_a_cap_replaces_both(make: Make) -> None:
    house = make(patience=0)
    house.budgets.put(USER, "day", CENT)
    override(house, USER, 2 * CENT)
    assert override(house, USER, None).cap.after == CENT
    assert amounts(house, USER)[0][1]
    end_overrides(house)
    assert override(house, USER, 3 * CENT).cap.after == CENT  # of one that has ended, too
    house.budgets.put(USER, "day", 4 * CENT)
    end_overrides(house)
    assert amounts(house, USER) == [(4 * CENT, False)]
    assert house.check().faults == []


@pytest.mark.parametrize("way", WAYS)
def test_override_that_is_written_twice(make: Make, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    house.budgets.put(USER, "day", CENT)
    write_twice(way, monkeypatch)
    assert override(house, USER, 2 * CENT).cap.after == CENT
    assert override(house, "key:key_1", 2 * CENT).cap.after is None


def test_default_of_a_key_is_overridden_too(make: Make) -> None:
    house, other = make(patience=0), make(patience=0)
    house.budgets.put("end_user:key_1/*", "day", CENT // 2)
    assert not fits(house)
    override(house, "end_user:key_1/*", 2 * CENT)
    assert fits(house) and fits(other)
    [state] = house.budgets.of(["end_user:key_1/zoë / 7"])
    assert (state.cap.amount, state.cap.after, state.cap.default) == (2 * CENT, CENT // 2, True)
    end_overrides(house)
    assert not fits(other) and not fits(house)
    assert house.check().faults == []


@pytest.mark.parametrize("skew", [-3_600_000, 3_600_000])
def test_database_clock_decides_whatever_a_process_has(
    make: Make, skew: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make(patience=0, service_day=NANO)
    house.budgets.put(USER, "day", CENT // 2)
    override(house, USER, 2 * CENT, 60_000)
    monkeypatch.setattr(caps_in_force, "now_ms", lambda: now_ms() + skew)
    assert fits(house)
    override(house, USER, 2 * CENT, 300)

    def ended() -> bool:
        row = house.db.query(lambda tx: cap_rows.locked(tx, [USER], "day"))[0]
        return bool(row["now"] > row["until"])

    wait_until(ended, "the end of the override")
    assert not fits(house)
    assert house.check().faults == []


def test_next_window_opens_with_the_amount_in_force(make: Make) -> None:
    house = make(patience=0)
    house.budgets.put(USER, "day", CENT)
    override(house, USER, 3 * CENT)
    at = now_ms() + LATER
    [cap] = house.db.query(lambda tx: house.budgets.in_force.read(tx, [USER]))
    house.budgets.windows.open([cap], at)
    [state] = house.db.query(lambda tx: house.budgets.standing(tx, [cap], at))
    assert state.cap.amount == 3 * CENT
    end_overrides(house)
    [cap] = house.db.query(lambda tx: house.budgets.in_force.read(tx, [USER]))
    [state] = house.db.query(lambda tx: house.budgets.standing(tx, [cap], at))
    assert state.cap.amount == CENT


def test_many_processes_meet_the_end_at_once(make: Make) -> None:
    houses = [make(patience=1) for _ in range(3)]
    houses[0].budgets.put("service", "day", 4 * CENT)
    override(houses[0], "service", NANO)
    held = [houses[number % 3].reserve(a_run(f"usr_{number}"), fewest=800) for number in range(3)]
    end_overrides(houses[0])
    found = at_once(12, lambda number: houses[number % 3].reserve(a_run(f"usr_{number}"), fewest=800))
    refused = [each for each in found if isinstance(each, BudgetExceeded)]
    assert len(refused) == 11, found
    spent, reserved = houses[0].figures("service")
    assert (spent, reserved) == (0, 4 * CENT)
    for each in [*held, *(one for one in found if one not in refused)]:
        houses[0].settle(each, Usage(0, 1))
    assert houses[0].check().faults == []


def test_owner_of_a_key_raises_no_cap_by_way_of_an_override(make: Make) -> None:
    house = make()
    house.budgets.put("key:key_1", "day", CENT)
    override(house, "key:key_1", 9 * CENT)
    with pytest.raises(Forbidden):
        house.budgets.put("key:key_1", "day", 5 * CENT, lower=True)
    end_overrides(house)
    house.budgets.put("key:key_1", "day", CENT // 2, lower=True)
    assert amounts(house, "key:key_1") == [(CENT // 2, False)]
