"""Caps of end users: one's own, the default of their key, and names with any character."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import BudgetExceeded
from service.store.budgets import BudgetWindow
from service.store.cap_scopes import end_user_of
from service.store.schema import api_keys, counters, users, workspaces
from service.types import NANO, Run, Usage
from service.usage import budget_windows
from service.usage.counter_snapshot import span_of
from service.usage.ledger import Fault
from tests.usage.conftest import Make
from tests.usage.house import CENT, House, a_run, at_once

KEY, OTHER = "key_" + "1" * 26, "key_" + "2" * 26
NAMES = ["adam", "zoë / 7", "a/day/0", "a/total/0/0", "100%", "//", "..", " ", "🙂" * 64, "/" * 64, "day"]


def of(name: str | None, key: str | None = KEY, **fields: Any) -> Run:
    return a_run(key=key, end_user=name, **fields)


def scope(name: str, key: str = KEY) -> str:
    return f"end_user:{key}/{name}"


def full(house: House, name: str, **options: Any) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as refused:
        house.reserve(of(name, **options), fewest=800)
    return refused.value


def counted(house: House) -> list[str]:
    query = sa.select(counters.c.window_id).where(counters.c.key_id.is_not(None)).order_by(counters.c.id)
    return [row["window_id"].rpartition("/day/")[0] for row in house.db.query(lambda tx: tx.rows(query))]


@pytest.mark.parametrize("name", NAMES)
def test_cap_of_an_end_user_holds_for_them_alone(make: Make, name: str) -> None:
    house = make(patience=0)
    for period in ("day", "month", "total"):
        assert house.budgets.put(scope(name), period, CENT).left == CENT  # type: ignore[arg-type]
    held = house.reserve(of(name))
    assert full(house, name).extra["budget"]["scope"] == scope(name)
    for other in (of("eve"), of(name, OTHER), of(name, None), of(None)):
        house.spend(Usage(0, 800), other)
    house.settle(held, Usage(0, 700))
    assert house.figures(scope(name)) == (7_000_000, 0)
    assert house.check().faults == []


@pytest.mark.parametrize("name", NAMES)
def test_windows_of_any_name_are_found_by_their_day(name: str) -> None:
    window = BudgetWindow(scope(name), "day", 1_795_219_200_000)
    assert span_of(window.id) == span_of(window.counter(0)) == ("day", window.start)
    assert end_user_of(scope(name)) == (KEY, name)


def test_new_cap_counts_what_was_spent_and_held_before(make: Make) -> None:
    house = make(patience=0)
    house.spend(Usage(0, 300), of("adam"))
    held = house.reserve(of("adam"))
    state = house.budgets.put(scope("adam"), "total", 2 * CENT)
    assert (state.spent, state.held) == (3_000_000, CENT)
    full(house, "adam")
    house.settle(held, Usage(0, 10))
    assert house.figures(scope("adam"), "total") == (3_100_000, 0)
    assert house.check().faults == []


def test_default_holds_for_each_end_user_with_what_they_spent_before(make: Make) -> None:
    house = make(patience=0)
    house.spend(Usage(0, 600), of("adam"))
    held = house.reserve(of("eve"))
    house.budgets.put(scope("*"), "day", 15 * CENT // 10)
    full(house, "adam")
    full(house, "eve")
    house.spend(Usage(0, 800), of("zoë"))
    house.spend(Usage(0, 800), of(None))
    [state] = house.budgets.of([scope("adam")])
    assert (state.cap.default, state.spent, state.left) == (True, 6_000_000, 9_000_000)
    house.settle(held, Usage(0, 100))
    house.spend(Usage(0, 800), of("eve"))
    assert house.figures(scope("eve")) == (9_000_000, 0)
    assert house.check().faults == []


def test_own_cap_replaces_the_default_in_its_period(make: Make) -> None:
    house = make(patience=0)
    house.budgets.put(scope("*"), "day", CENT)
    house.budgets.put(scope("*"), "month", 3 * CENT)
    house.budgets.put(scope("adam"), "day", None)
    for _ in range(3):
        house.spend(Usage(0, 800), of("adam"), fewest=800)
        house.spend(Usage(0, 100), of("eve"))
    assert full(house, "adam", agent="other").extra["budget"]["period"] == "month"
    assert full(house, "eve").extra["budget"]["period"] == "day"
    assert house.check().faults == []


def test_changed_default_holds_at_once_in_open_windows_and_on_every_process(make: Make) -> None:
    house, other = make(patience=0), make(patience=0)
    house.budgets.put(scope("*"), "total", CENT)
    house.budgets.put(scope("eve"), "total", CENT)
    for name in ("adam", "eve"):
        house.spend(Usage(0, 600), of(name), fewest=800)
    for amount, fits in ((2 * CENT, True), (CENT // 2, False), (None, True), (CENT, False), (9 * CENT, True)):
        house.budgets.put(scope("*"), "total", amount)
        if fits:
            other.spend(Usage(0, 100), of("adam"), fewest=800)
        else:
            full(other, "adam")
        full(other, "eve")
    assert house.figures(scope("adam"), "total") == (9_000_000, 0)
    assert house.check().faults == []


def test_lifted_default_goes_on_counting(make: Make) -> None:
    house = make(patience=0)
    house.budgets.put(scope("*"), "day", CENT)
    house.budgets.put(scope("*"), "day", None)
    assert house.budgets.of([scope("adam")]) == []
    house.spend(Usage(0, 800), of("adam"))
    house.budgets.put(scope("*"), "day", CENT)
    full(house, "adam")


def test_names_that_nothing_caps_leave_no_counters(make: Make) -> None:
    house = make(user_day=NANO, service_day=NANO)
    for name in ("adam", "eve"):
        house.spend(Usage(0, 1), of(name))
    assert counted(house) == []
    house.budgets.put(scope("adam"), "day", CENT)
    house.spend(Usage(0, 1), of("eve"))
    assert counted(house) == [scope("adam")]


def test_invented_names_are_bounded_for_each_key(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget_windows, "MAX_END_USERS", 2)
    house = make(patience=0)
    for key in (KEY, OTHER):
        house.budgets.put(scope("*", key), "day", NANO)
    for name in ("adam", "eve", "adam"):
        house.spend(Usage(0, 1), of(name))
    refused = full(house, "invented")
    assert refused.extra["budget"]["scope"] == scope("*") and refused.extra["budget"]["renews_at"]
    house.spend(Usage(0, 1), of("invented", OTHER))
    house.budgets.put(scope("own"), "day", CENT)
    house.spend(Usage(0, 1), of("own"))
    assert counted(house) == [*sorted(map(scope, ("adam", "eve", "own"))), scope("invented", OTHER)]
    house.budgets.put(scope("*"), "day", None)
    house.spend(Usage(0, 1), of("invented"))
    assert house.check().faults == []


def test_many_new_end_users_at_once(make: Make) -> None:
    houses = [make(patience=2), make(patience=2)]
    houses[0].budgets.put(scope("*"), "day", CENT)

    def spend(number: int) -> object:
        house = houses[number % 2]
        house.budgets.put(scope("*"), "day", CENT + number)
        return house.spend(Usage(0, 400), of(f"user {number % 3}"), fewest=800)

    for found in at_once(12, spend):
        assert isinstance(found, int | BudgetExceeded)
    for number in range(3):
        spent, held = houses[0].figures(scope(f"user {number}"))
        assert spent <= CENT + 11 and held == 0
    assert houses[0].check().faults == []


def test_check_finds_a_counter_of_another_end_user(make: Make) -> None:
    house = make()
    house.budgets.put(scope("adam"), "day", NANO)
    house.budgets.put(scope("eve"), "day", NANO)
    house.spend(Usage(0, 1), of("adam"))
    house.write(
        lambda tx: tx.execute(
            sa.text("UPDATE ledger SET end_user = 'eve' WHERE end_user = 'adam' AND kind = 'hold'")
        )
    )
    [fault] = [each for each in house.check().faults if "not its own" in each.detail]
    assert isinstance(fault, Fault) and scope("adam") in fault.detail


def test_admin_of_a_workspace_caps_its_own_keys_only(make: Make) -> None:
    house = make()
    row = {"name": "k", "prefix": "p", "scopes": [], "created_at": 1}
    user = {"password_hash": "", "role": "user", "disabled": False, "created_at": 1}

    def fill(tx: Any) -> None:
        for number, key in enumerate((KEY, OTHER)):
            workspace, name = f"wsp_{number}", f"usr_{number}"
            tx.execute(sa.insert(workspaces), {"id": workspace, "name": workspace, "created_at": 1})
            tx.execute(sa.insert(users), {"id": name, "username": name, "workspace_id": workspace, **user})
            owned = {"id": key, "user_id": name, "digest": key, **row}
            tx.execute(sa.insert(api_keys), tx.sealed(api_keys, owned, name))

    house.write(fill)
    for key in (KEY, OTHER):
        house.budgets.put(scope("a/b", key), "day", CENT)
    shown = [state.cap.scope for state in house.budgets.page(limit=9, after=None, workspace_id="wsp_1")]
    assert shown == [scope("a/b", OTHER)]
    assert house.budgets.of_scope(scope("a/b", KEY), "wsp_1") == []
    assert len(house.budgets.of_scope(scope("a/b", OTHER), "wsp_1")) == 1
