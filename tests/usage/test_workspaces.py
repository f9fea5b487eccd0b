"""Caps of workspaces: shared by their users, counted with earlier spending, and told to nobody else."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import BudgetExceeded
from service.store.schema import counters, users, workspaces
from service.types import DEFAULT_WORKSPACE, NANO, Run, Usage
from tests.usage.conftest import Make
from tests.usage.house import CENT, House, a_run

ACME = "wsp_" + "a" * 26
SCOPE = f"workspace:{ACME}"


def of_acme(user: str = "usr_zoe") -> Run:
    return a_run(user, workspace_id=ACME)


@pytest.fixture
def house(make: Make) -> House:
    made = make(patience=0)
    row: dict[str, Any] = {"workspace_id": ACME, "password_hash": "", "role": "user", "created_at": 1}
    made.db.transact(
        lambda tx: (
            tx.execute(sa.insert(workspaces), {"id": ACME, "name": "acme", "created_at": 1}),
            [
                tx.execute(sa.insert(users), {"id": name, "username": name, "disabled": False, **row})
                for name in ("usr_zoe", "usr_yan")
            ],
        )
    )
    return made


def test_cap_is_shared_by_the_users_of_its_workspace_only(house: House) -> None:
    house.budgets.put(SCOPE, "month", 2 * CENT)
    for run in (of_acme("usr_zoe"), of_acme("usr_yan")):
        house.spend(Usage(0, 600), run)
    with pytest.raises(BudgetExceeded, match="workspace:") as refused:
        house.spend(Usage(0, 800), of_acme(), fewest=800)
    assert refused.value.extra["budget"]["scope"] == SCOPE
    house.spend(Usage(0, 800), a_run("usr_ada"), fewest=800)
    assert house.check().faults == []


def test_new_cap_counts_what_was_spent_and_held_before(house: House) -> None:
    spent = house.spend(Usage(100, 200), of_acme())
    house.spend(Usage(100, 300), a_run("usr_ada"))
    held = house.reserve(of_acme("usr_yan"))
    state = house.budgets.put(SCOPE, "total", NANO)
    assert (state.spent, state.held) == (spent, held.hold.amount_nano)
    cost = house.settle(held, Usage(100, 200))
    assert house.figures(SCOPE, "total") == (spent + cost, 0)
    assert house.check().faults == []


def test_no_counter_without_a_cap(house: House) -> None:
    house.spend(Usage(100, 200), of_acme())
    house.spend(Usage(100, 200))
    assert house.db.query(lambda tx: tx.rows(sa.select(counters))) == []


def test_default_cap_of_the_settings(make: Make) -> None:
    house = make(workspace_day=CENT, patience=0)
    house.spend(Usage(0, 600), of_acme())
    with pytest.raises(BudgetExceeded):
        house.spend(Usage(0, 800), of_acme(), fewest=800)
    house.spend(Usage(0, 600))  # of `default`


@pytest.mark.parametrize("scope", ["service", "agent:support"])
def test_amounts_of_shared_caps_are_not_told_elsewhere(house: House, scope: str) -> None:
    house.spend(Usage(0, 600))
    house.budgets.put(scope, "month", CENT)
    with pytest.raises(BudgetExceeded) as refused:
        house.spend(Usage(0, 800), of_acme(), fewest=800)
    assert refused.value.extra["budget"].keys() == {"scope", "period", "renews_at"}
    assert "left" not in refused.value.detail
    with pytest.raises(BudgetExceeded, match="dollars are left") as told:
        house.spend(Usage(0, 800), fewest=800)
    assert told.value.extra["budget"]["spent_usd"] != "0.000000"


def test_ledger_check_finds_a_workspace_that_is_not_the_users_own(house: House) -> None:
    house.budgets.put(SCOPE, "month", NANO)
    house.spend(Usage(100, 200), a_run("usr_zoe", workspace_id=ACME))
    assert house.check().faults == []
    house.spend(Usage(100, 200), a_run("usr_stranger", workspace_id=ACME))
    assert {fault.detail.partition(" in ")[0] for fault in house.check().faults} == {"it counts"}


def test_caps_of_a_workspace_are_a_list_of_their_own(house: House) -> None:
    for scope in ("user:usr_zoe", SCOPE, "agent:support", f"workspace:{DEFAULT_WORKSPACE}"):
        house.budgets.put(scope, "month", NANO)
    assert [state.cap.scope for state in house.budgets.page(limit=9, after=None, workspace_id=ACME)] == [
        "user:usr_zoe",
        SCOPE,
    ]
    assert len(house.budgets.page(limit=9, after=None)) == 4
