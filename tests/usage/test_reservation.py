"""Holding and settling, one call at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from service.errors import BudgetExceeded, ModelUnavailable
from service.store import holds
from service.store.transaction import WriteInTransaction
from service.types import NANO, Usage
from service.usage.bounds import counted_bound
from service.usage.reservation import sweep_holds
from service.usage.tree import HoldRefused
from tests.usage.conftest import Make
from tests.usage.house import ASKED, CENT, SONNET, a_run, wish


def test_the_worst_is_held_and_the_rest_given_back(make: Make) -> None:
    house = make(user_day=NANO, service_day=NANO)
    reserved = house.reserve()
    assert reserved.hold.amount_nano == CENT
    assert house.figures("user:usr_ada") == house.figures("service") == (0, CENT)
    cost = house.settle(reserved, Usage(input_tokens=300, output_tokens=100))  # 300 x 2,000 + 100 x 10,000
    assert cost == 1_600_000
    assert house.figures("user:usr_ada") == house.figures("service") == (1_600_000, 0)


def test_call_without_a_cap_is_in_the_ledger(make: Make) -> None:
    house = make()
    assert house.spend(Usage(300, 100)) == 1_600_000
    assert house.check()._replace(faults=[]) == (2, 0, 1_600_000, 0, [], 0) and house.check().faults == []


def test_a_work_that_runs_twice_counts_once(make: Make) -> None:
    """As after a commit whose answer was lost."""
    house = make(user_day=NANO)

    def write_twice(*works: WriteInTransaction) -> None:
        for _ in range(2):
            house.write(*works)

    reserved = house.spending.reserve(wish(a_run()), write_twice, lambda: None)
    assert house.figures("user:usr_ada") == (0, CENT)
    write_twice(house.spending.settle(reserved.hold, SONNET, Usage(0, 100)).work)
    write_twice(house.spending.settle_worst(reserved.hold).work)
    assert house.figures("user:usr_ada") == (NANO // 1000, 0)
    assert house.check().faults == []


def test_a_hold_that_does_not_fit_leaves_nothing_of_its_transaction(make: Make) -> None:
    house = make(user_day=NANO, service_day=CENT)
    house.reserve()
    told: list[str] = []

    def write(*works: WriteInTransaction) -> None:
        house.write(lambda tx: tx.after_commit(lambda: told.append("kept")), *works)

    with pytest.raises(BudgetExceeded) as refused:
        house.spending._patience = 0
        house.spending.reserve(wish(a_run()), write, lambda: None)
    assert refused.value.extra["budget"] | {"renews_at": ""} == {
        "scope": "service",
        "period": "day",
        "amount_usd": "0.010000",
        "spent_usd": "0.000000",
        "reserved_usd": "0.010000",
        "left_usd": "0.000000",
        "renews_at": "",
        "default": True,
        "until": None,
        "after_usd": None,
    }
    assert told == []
    assert house.figures("user:usr_ada") == (0, CENT)  # of the first call alone
    assert len(house.db.query(holds.every)) == 1


def test_answer_is_shortened_before_the_call_is_refused(make: Make) -> None:
    house = make(user_day=CENT * 6 // 10, patience=0)
    reserved = house.reserve()  # 0.002 for the prompt leave 0.004 for 400 tokens
    assert (reserved.max_tokens, reserved.hold.amount_nano) == (400, CENT * 6 // 10)
    with pytest.raises(BudgetExceeded):
        house.reserve()
    house.finish(house.spending.settle_unused(reserved.hold))
    with pytest.raises(BudgetExceeded):
        house.reserve(fewest=401)
    assert house.reserve(fewest=400).max_tokens == 400


def test_the_tightest_of_all_caps_decides(make: Make) -> None:
    house = make(user_day=NANO, service_day=NANO, run_most=CENT // 2, patience=0)
    house.budgets.put("agent:support", "month", CENT * 7 // 10)
    run = a_run()
    assert house.reserve(run).max_tokens == 500  # 0.002 of 0.007 are the prompt's
    house.budgets.put("agent:support", "month", NANO)
    assert house.reserve(run, most=house.spending.remaining_budget(run)).max_tokens == 300
    run.cost_nano = CENT // 2 - 1
    with pytest.raises(BudgetExceeded) as refused:
        house.reserve(run, most=house.spending.remaining_budget(run))
    assert refused.value.extra["budget"]["scope"] == "run"  # type: ignore[index]


def test_the_prompt_is_counted_before_the_answer_is_cut(make: Make) -> None:
    house = make(user_day=CENT, patience=0)
    counts: list[int] = []

    def count() -> int:
        counts.append(100)
        return 100

    reserved = house.reserve(input_tokens=2_000, count=count)
    assert counts == [100]
    assert reserved.max_tokens == ASKED
    assert reserved.hold.amount_nano == counted_bound(100) * 4_000 + ASKED * 10_000
    house.budgets.put("user:usr_ada", "day", reserved.hold.amount_nano)
    with pytest.raises(BudgetExceeded):
        house.reserve(input_tokens=2_000, count=count)
    assert counts == [100]  # hopeless whatever the prompt: not worth asking


def test_a_prompt_without_a_bound_is_always_counted(make: Make) -> None:
    house = make()
    reserved = house.reserve(input_tokens=None, count=lambda: 1_000)
    assert reserved.hold.amount_nano == counted_bound(1_000) * 4_000 + ASKED * 10_000

    def fails() -> int:
        raise ModelUnavailable

    with pytest.raises(ModelUnavailable):
        house.reserve(input_tokens=None, count=fails)
    assert house.reserve(input_tokens=700, count=fails).hold.amount_nano == 700 * 4_000 + ASKED * 10_000


def test_reserve_waits_for_a_hold_to_be_released(make: Make) -> None:
    house = make(user_day=CENT, patience=30)
    first = house.reserve()
    checks: list[int] = []

    def check() -> None:
        checks.append(1)
        if len(checks) == 3:
            house.settle(first, Usage(0, 10))

    reserved = house.spending.reserve(wish(a_run(), fewest=64), house.write, check)
    assert len(checks) >= 3 and reserved.max_tokens == ASKED - 10


def test_reserve_does_not_wait_for_spent_money(make: Make) -> None:
    house = make(user_day=CENT, patience=30)
    house.spend(Usage(0, 750))
    tries: list[int] = []
    with pytest.raises(BudgetExceeded):
        house.spending.reserve(wish(a_run()), house.write, lambda: tries.append(1))
    assert len(tries) == 1


def test_error_during_the_wait_is_raised(make: Make) -> None:
    house = make(user_day=CENT, patience=30)
    house.reserve()

    def check() -> None:
        raise KeyError("cancelled")

    with pytest.raises(KeyError):
        house.spending.reserve(wish(a_run()), house.write, check)


def test_hold_of_a_dead_worker_is_settled_at_worst_on_resume(make: Make) -> None:
    house = make(user_day=NANO)
    run = a_run()
    house.reserve(run)
    assert house.spending.settle_lost(run) == []  # its own
    run.attempt = 2
    found = house.spending.settle_lost(run)
    assert [settlement.cost for settlement in found] == [CENT]
    house.finish(found[0])
    assert sweep_holds(house.db, house.spending, older_than=0) == 0
    assert house.figures("user:usr_ada") == (CENT, 0)


def test_sweep_settles_abandoned_holds(make: Make) -> None:
    house = make(user_day=NANO)
    house.reserve()
    assert sweep_holds(house.db, house.spending, older_than=3600) == 0
    assert sweep_holds(house.db, house.spending, older_than=0) == 1
    assert house.figures("user:usr_ada") == (CENT, 0)
    assert house.check().faults == []


def test_cost_above_the_hold_is_booked_in_full(make: Make) -> None:
    house = make(user_day=NANO)
    reserved = house.reserve()
    assert house.settle(reserved, Usage(0, 2 * ASKED)) == 2 * CENT * 8 // 10
    assert house.figures("user:usr_ada") == (CENT * 16 // 10, 0)
    assert b"slipway_hold_overruns_total 1.0" in house.metrics.render()[0]


def test_call_held_before_midnight_is_settled_in_its_own_day(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make(user_day=2 * CENT, patience=0)
    day = 86_400_000
    midnight = 20_500 * day
    clock = [midnight - 1]
    for module in ("reservation", "budgets"):
        monkeypatch.setattr(f"service.usage.{module}.now_ms", lambda: clock[0])
    late = house.reserve()
    clock[0] = midnight
    assert house.figures("user:usr_ada") == (0, 0)
    house.settle(late, Usage(0, 100))
    assert house.figures("user:usr_ada") == (0, 0)
    house.spend(Usage(0, 100))
    house.spend(Usage(0, 100))
    assert house.figures("user:usr_ada") == (2_000_000, 0)
    clock[0] = midnight - 1
    assert house.figures("user:usr_ada") == (1_000_000, 0)
    assert house.check().faults == []


def test_short_never_leaves(make: Make) -> None:
    house = make(user_day=0, patience=0)
    with pytest.raises(BudgetExceeded):
        house.reserve()
    assert not issubclass(HoldRefused, BudgetExceeded)


def test_call_of_a_run_that_waits_is_held_whole_or_not_at_all(make: Make) -> None:
    """Unless the cap is too small for a whole answer: no wait would help."""
    house = make(patience=0.1)
    house.budgets.put("user:usr_ada", "day", 2 * CENT)
    house.reserve()
    house.reserve(max_tokens=300)
    shortened = house.reserve()
    assert shortened.max_tokens < ASKED
    house.finish(house.spending.settle_unused(shortened.hold))
    with pytest.raises(BudgetExceeded) as refused:
        house.spending.reserve(replace(wish(a_run()), waits=True), house.write, lambda: None)
    assert refused.value.needed == CENT
    house.budgets.put("user:usr_bob", "day", CENT // 2)
    of_bob = replace(wish(a_run("usr_bob")), waits=True)
    assert house.spending.reserve(of_bob, house.write, lambda: None).max_tokens < ASKED
