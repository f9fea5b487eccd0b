"""A cap holds: with threads, with processes, with some of them killed, and with everybody in it for the first time."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.errors import BudgetExceeded
from service.store import ledger
from service.types import NANO, Usage
from service.usage.caps import Cap
from service.usage.spending import sweep_holds
from service.usage.wishes import Work
from tests.conftest import PYTHON, ROOT, process, wait_until
from tests.usage.conftest import Make
from tests.usage.house import ASKED, CENT, House, a_run, at_once, wish

FULL = Usage(input_tokens=1000, output_tokens=ASKED)  # at 2 and 10 dollars a million: a cent


def test_a_new_users_first_calls_all_at_once(make: Make) -> None:
    house = make(user_day=5 * CENT)
    results = at_once(20, lambda _: house.spend(FULL, a_run("usr_new"), fewest=ASKED))
    assert results.count(CENT) == 5
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 15
    assert house.figures("user:usr_new") == (5 * CENT, 0)
    assert house.check().faults == []


def test_a_cap_everyone_shares_is_used_to_the_last_cent(make: Make) -> None:
    house = make(service_day=40 * CENT, patience=20.0)
    results = at_once(60, lambda number: house.spend(FULL, a_run(f"usr_{number}"), fewest=ASKED))
    assert results.count(CENT) == 40
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 20
    assert house.figures("service") == (40 * CENT, 0)
    assert house.check().faults == []


def test_many_caps_at_once_hold_all_or_none(make: Make) -> None:
    house = make(user_day=10 * CENT, service_day=30 * CENT, patience=20.0)
    for scope, period, amount in (
        ("agent:support", "month", 20 * CENT),
        ("key:key_1", "total", 3 * CENT),
        ("session:ses_1", "day", 2 * CENT),
        ("service", "month", 25 * CENT),
    ):
        house.budgets.put(scope, period, amount)  # type: ignore[arg-type]

    def spend(number: int) -> int:
        run = a_run(
            f"usr_{number % 4}",
            agent="support" if number % 2 else "analyst",
            key="key_1" if number % 3 == 0 else None,
            session="ses_1" if number % 5 == 0 else None,
        )
        return house.spend(FULL, run, fewest=ASKED)

    results = at_once(40, spend)
    unexpected = [result for result in results if not isinstance(result, int | BudgetExceeded)]
    assert unexpected == []
    spent = sum(result for result in results if isinstance(result, int))
    assert house.figures("service") == house.figures("service", "month") == (spent, 0)
    assert house.figures("key:key_1", "total")[0] <= 3 * CENT
    assert house.figures("session:ses_1")[0] <= 2 * CENT
    assert house.figures("agent:support", "month")[0] <= 20 * CENT
    assert house.check().faults == []


def test_the_cap_changes_while_everybody_spends(make: Make) -> None:
    house = make(service_day=100 * CENT, patience=0.2)
    caps = [30 * CENT, 5 * CENT, 12 * CENT, 50 * CENT]

    def work(number: int) -> int:
        if number < len(caps):
            time.sleep(number * 0.05)
            house.budgets.put("service", "day", caps[number])
            house.budgets.put("user:usr_1", "month", caps[number])  # a new cap: what goes on is counted in
            return 0
        spent = 0
        for _ in range(5):
            time.sleep(random.uniform(0, 0.03))
            with suppress(BudgetExceeded):
                spent += house.spend(FULL, a_run(f"usr_{number % 3}"), fewest=ASKED)
        return spent

    results = at_once(24, work)
    assert [result for result in results if not isinstance(result, int)] == []
    assert house.figures("service") == (sum(results), 0)
    user = house.db.query(lambda tx: ledger.spent_since(tx, "user:usr_1", 0))
    assert house.figures("user:usr_1", "month") == (user, 0)
    assert house.check().faults == []


def waits_for_a_lock(house: House) -> bool:
    """Whether a transaction of this database stands in line behind another."""
    asked = sa.text(
        "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    return house.db.query(lambda tx: tx.row(asked)) is not None


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)  # SQLite has one writer: there is no meanwhile
def test_a_cap_set_while_a_hold_is_under_way_counts_it(make: Make) -> None:
    """The hold has read the caps and is not committed yet: whoever sets a cap now can see neither it nor its end."""
    house = make()
    taken, go_on = threading.Event(), threading.Event()

    def slowly(work: Work) -> None:
        with house.db.begin() as tx:
            work(tx)
            taken.set()
            assert go_on.wait(30)

    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(house.spending.reserve, wish(a_run()), slowly, lambda: None)
        assert taken.wait(10)
        put = pool.submit(house.budgets.put, "user:usr_ada", "day", NANO)
        wait_until(lambda: put.done() or waits_for_a_lock(house), "the cap, or its place in line", 10)
        go_on.set()
        assert put.result(30).held == held.result(30).hold.amount_nano == CENT
    assert house.figures("user:usr_ada") == (0, CENT)
    house.settle(held.result(), FULL)
    assert house.figures("user:usr_ada") == (CENT, 0)
    assert house.check().faults == []


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_hold_that_begins_while_a_cap_is_set_counts_against_it(make: Make) -> None:
    """The other way round: the cap is written and not committed, so a hold that read the caps now would miss it."""
    house = make(patience=0)
    written, go_on = threading.Event(), threading.Event()

    def put() -> None:
        with house.db.begin() as tx:
            house.budgets._put(tx, Cap("user:usr_ada", "day", CENT * 3 // 2), CENT * 3 // 2)
            written.set()
            assert go_on.wait(30)

    with ThreadPoolExecutor(2) as pool:
        setting = pool.submit(put)
        assert written.wait(10)
        held = pool.submit(house.reserve)
        wait_until(lambda: held.done() or waits_for_a_lock(house), "the hold, or its place in line", 10)
        go_on.set()
        setting.result(30)
        held.result(30)
    assert house.figures("user:usr_ada") == (0, CENT)
    with pytest.raises(BudgetExceeded):
        house.reserve(fewest=ASKED)
    assert house.check().faults == []


@pytest.mark.parametrize("kills", [0, 3])
def test_processes_and_kills(make: Make, url: str, tmp_path: Path, kills: int) -> None:
    """Cap 1 dollar, four processes that want five times as much, some of them killed between hold and settlement."""
    house = make(patience=5.0)
    house.budgets.put("service", "day", NANO)
    house.budgets.put("user:usr_1", "day", NANO // 3)
    bill = tmp_path / "bill"
    command = [PYTHON, "-m", "tests.usage.spender", url, str(bill)]
    with ExitStack() as stack:
        children = [
            stack.enter_context(process([*command, "125", "4"], stdout=subprocess.PIPE)) for _ in range(4)
        ]
        for child in children:
            assert child.stdout is not None
            with child.stdout as said:
                assert said.readline() == b"ready\n"
        for child in children[:kills]:
            time.sleep(random.uniform(0.05, 0.3))
            child.kill()
        for child in children:
            child.wait(100)
    assert house.check().faults == []
    sweep_holds(house.db, house.spending, older_than=0)
    subprocess.run(
        [*command, "40", "4"], cwd=ROOT, check=True, timeout=100, stdout=subprocess.DEVNULL
    )  # whatever is left is there to be used
    billed = sum(map(int, bill.read_text().split()))
    spent, held = house.figures("service")
    checked = house.check()
    assert checked.faults == []
    assert billed <= spent <= NANO and held == 0
    assert NANO - spent < CENT
    if not kills:
        assert billed == spent
