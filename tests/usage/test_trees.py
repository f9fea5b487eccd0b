"""Holds of trees of sub-agents: held at once, taken by calls, given back, and released, on either database."""

from __future__ import annotations

import threading

import pytest
import sqlalchemy as sa

from service.errors import BudgetExceeded
from service.store import holds
from service.store.schema import ledger
from service.types import Usage
from service.usage.reservation import sweep_holds
from tests.usage.conftest import Make, make
from tests.usage.house import CENT, USED, a_run, at_once

__all__ = ["make"]
USER = "user:usr_ada"


def test_call_takes_its_hold_from_the_tree_and_gives_the_rest_back(make: Make) -> None:
    house = make(user_day=10 * CENT)
    run = a_run()
    tree = house.plant(run, 4 * CENT)
    assert house.figures(USER) == (0, 4 * CENT)
    reserved = house.reserve(run, tree=tree)
    assert house.figures(USER) == (0, 4 * CENT)
    cost = house.settle(reserved, USED)
    assert house.figures(USER) == (cost, 4 * CENT - cost)
    [left] = house.db.query(holds.every)
    assert (left.id, left.amount_nano) == (tree.id, 4 * CENT - cost)
    house.finish(house.spending.end_tree(tree))
    assert house.figures(USER) == (cost, 0)
    checked = house.check()
    assert (checked.faults, checked.spent, checked.held) == ([], cost, 0)


def test_tree_is_held_whole_or_refused(make: Make) -> None:
    house = make(user_day=3 * CENT, patience=0)
    with pytest.raises(BudgetExceeded) as refused:
        house.plant(a_run(), 4 * CENT)
    assert refused.value.extra["budget"]["scope"] == USER  # type: ignore[index]
    assert house.figures(USER) == (0, 0) and house.db.query(holds.every) == []


def test_call_that_does_not_fit_is_shortened_then_refused(make: Make) -> None:
    house = make(patience=0)
    run = a_run()
    tree = house.plant(run, CENT // 2)
    shortened = house.reserve(run, tree=tree)
    assert shortened.max_tokens < 800 and shortened.hold.amount_nano <= CENT // 2
    with pytest.raises(BudgetExceeded) as refused:
        house.reserve(run, tree=tree)
    assert refused.value.extra["budget"]["scope"] == "tree"  # type: ignore[index]
    house.settle(shortened, Usage(1, 1))
    assert house.reserve(run, tree=tree).max_tokens > 64


def test_call_waits_for_what_others_give_back(make: Make) -> None:
    house = make()
    run = a_run()
    tree = house.plant(run, CENT)
    first = house.reserve(run, tree=tree)
    later = threading.Timer(0.3, house.settle, (first, Usage(1, 1)))
    later.start()
    assert house.reserve(run, tree=tree).max_tokens >= 64
    later.join(60)


def test_call_settled_after_its_tree_gives_the_rest_to_the_user(make: Make) -> None:
    """As after a kill: the next attempt ends the tree, and settles its calls at their worst."""
    house = make(user_day=10 * CENT)
    run = a_run()
    tree = house.plant(run, 4 * CENT)
    reserved = house.reserve(run, tree=tree)
    run.attempt = 2
    for settlement in house.spending.settle_lost(run):
        house.finish(settlement)
    assert house.figures(USER) == (reserved.hold.amount_nano, 0)
    assert house.db.query(holds.every) == [] and house.check().faults == []


def test_sweep_ends_a_tree_without_spending_it(make: Make) -> None:
    house = make(user_day=10 * CENT)
    house.plant(a_run(), 4 * CENT)
    assert sweep_holds(house.db, house.spending, older_than=-1) == 1
    assert house.figures(USER) == (0, 0) and house.check().spent == 0


def test_cap_set_meanwhile_has_the_tree_and_its_calls(make: Make) -> None:
    house = make()
    run = a_run()
    tree = house.plant(run, 4 * CENT)
    reserved = house.reserve(run, tree=tree)
    house.budgets.put(USER, "day", 5 * CENT)
    assert house.figures(USER) == (0, 4 * CENT)
    cost = house.settle(reserved, USED)
    assert house.figures(USER) == (cost, 4 * CENT - cost)
    house.finish(house.spending.end_tree(tree))
    assert house.figures(USER) == (cost, 0) and house.check().faults == []


def test_calls_side_by_side_never_pass_the_tree(make: Make) -> None:
    house = make(user_day=10 * CENT, patience=0)
    run = a_run()
    tree = house.plant(run, 3 * CENT)

    def spend(number: int) -> None:
        for _ in range(5):
            reserved = house.reserve(run, tree=tree)
            house.settle(reserved, Usage(500, reserved.max_tokens))

    at_once(6, spend)
    [left] = house.db.query(holds.every)
    spent, held = house.figures(USER)
    assert spent + held == 3 * CENT and held == left.amount_nano
    house.finish(house.spending.end_tree(tree))
    assert house.check().faults == []


@pytest.mark.parametrize("account", ["tree", "user"])
def test_check_finds_money_that_is_missing_in_a_tree(make: Make, account: str) -> None:
    house = make(user_day=10 * CENT)
    run = a_run()
    tree = house.plant(run, 4 * CENT)
    house.settle(house.reserve(run, tree=tree), USED)
    house.finish(house.spending.end_tree(tree))
    of_release = (ledger.c.kind == "release", ledger.c.account.startswith(account))
    less = sa.update(ledger).where(*of_release).values(amount_nano=ledger.c.amount_nano + 1)
    house.write(lambda tx: tx.execute(less))
    assert house.check().faults
