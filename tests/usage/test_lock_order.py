"""Setting a cap while calls run, on a real PostgreSQL: no deadlock, and every call counts."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
import sqlalchemy as sa

from service.errors import BudgetExceeded
from service.store import caps as rows
from service.store import holds, scope_locks
from service.store.database import Transaction
from service.store.transaction import WriteInTransaction
from service.types import NANO, Usage, now_ms
from service.usage import budget_windows
from service.usage.caps import PERIODS, Cap
from service.usage.estimate import Reserved
from service.usage.reservation import LATEST_HOLD
from service.usage.tree import HoldRefused
from tests.conftest import wait_until
from tests.usage.conftest import Make
from tests.usage.house import CENT, SONNET, House, a_run, at_once, wish

on_postgres = pytest.mark.parametrize("url", ["postgresql"], indirect=True)
Log = Callable[[], list[str]]
_WAITING = sa.text("SELECT pid FROM pg_locks WHERE NOT granted")


@pytest.fixture
def collisions(caplog: pytest.LogCaptureFixture) -> Log:
    caplog.set_level("INFO", "slipway.database")
    return lambda: [r.getMessage() for r in caplog.records if r.name == "slipway.database"]


def waiting(house: House) -> bool:
    """Whether somebody waits for a lock."""
    return bool(house.db.query(lambda tx: tx.rows(_WAITING)))


def sent(tx: Transaction) -> None:
    """Make a trip: the locks of a pipelined transaction are taken once its statements are sent."""
    tx.rows(sa.text("SELECT 1"))


def goes_on(house: House, before: Reserved, between: Callable[[], object] = lambda: None) -> Reserved:
    """The next step of a run, as `Journal` writes it: the last call is settled where the next is held for."""
    owed = [house.spending.settle(before.hold, SONNET, Usage(0, 100)).work]

    def write(first: WriteInTransaction, hold: WriteInTransaction) -> None:
        house.write(first, *owed, sent, lambda tx: between() and None, hold)
        owed.clear()

    def again() -> None:
        house.write(*owed)
        owed.clear()

    return house.spending.reserve(wish(a_run(id=before.hold.run_id)), write, again)


@on_postgres
@pytest.mark.parametrize("scope", ["service", "agent:support", "user:usr_ada"])
def test_a_step_under_way_when_a_cap_is_set(make: Make, collisions: Log, scope: str) -> None:
    house, setter = make(user_day=NANO), make(user_day=NANO)
    before = house.reserve()
    with ThreadPoolExecutor(1) as pool:

        def set_cap() -> None:
            if not asked:
                asked.append(pool.submit(setter.budgets.put, scope, "month", NANO))
                wait_until(lambda: waiting(house), "the setter")

        asked: list[object] = []
        goes_on(house, before, set_cap)
        state = asked[0].result(60)  # type: ignore[attr-defined]
    assert (state.spent, state.held) == (1_000_000, CENT)
    assert collisions() == [] and house.check().faults == []


@on_postgres
def test_step_waits_for_a_cap_being_set_and_counts_against_that_cap(make: Make, collisions: Log) -> None:
    house = make(patience=0)
    before = house.reserve()
    cap = Cap("agent:support", "day", NANO)
    settled = house.db.query(lambda tx: house.budgets.windows.settled(tx, cap.window(1)))
    with ThreadPoolExecutor(1) as pool:

        def slowly(tx: Transaction) -> Reserved:
            scope_locks.own(tx, "agent:support")
            sent(tx)
            step = pool.submit(goes_on, house, before)
            wait_until(lambda: waiting(house), "the step")
            rows.put(tx, cap.scope, cap.period, NANO, None)
            house.budgets.windows.apply(tx, cap, cap.window(now_ms()), settled)
            return step  # type: ignore[return-value]

        house.db.transact(slowly).result(60)  # type: ignore[attr-defined]
    assert house.figures("agent:support") == (1_000_000, CENT)
    assert collisions() == [] and house.check().faults == []


def test_the_counters_of_one_transaction_are_locked_at_once(make: Make) -> None:
    """A hold that needs another counter than what is settled with it is written after that, by itself."""
    house = make(user_day=NANO)
    before = house.reserve()
    house.budgets.put("key:key_1", "day", NANO)
    run = a_run(id=before.hold.run_id, key="key_1")
    owed = [house.spending.settle(before.hold, SONNET, Usage(0, 100)).work]
    turns: list[int] = []

    def write(first: WriteInTransaction, hold: WriteInTransaction) -> None:
        turns.append(len(owed))
        house.write(first, *owed, hold)

    def again() -> None:
        house.write(*owed)
        owed.clear()

    house.spending.reserve(wish(run), write, again)
    assert turns == [1, 0]
    assert house.figures("user:usr_ada") == (1_000_000, CENT) and house.figures("key:key_1") == (0, CENT)


def until_then(end: float) -> Iterator[int]:
    """Numbers from 0 on, until that moment of time.monotonic()."""
    return itertools.takewhile(lambda _: time.monotonic() < end, itertools.count())


def run_for(house: House, number: int, end: float) -> None:
    """Make runs of several steps."""
    for _ in until_then(end):
        with suppress(BudgetExceeded):
            run = a_run(f"usr_{number % 3}", key=f"key_{number}", end_user=f"guest / {number % 2}")
            reserved = house.reserve(run)
            for _ in range(2):
                reserved = goes_on(house, reserved)
            house.settle(reserved, Usage(0, 50))


def set_caps(house: House, number: int, end: float) -> None:
    """Set caps of every scope, which open windows and change those that are open; every other one ends soon."""
    for turn in until_then(end):
        scopes = ["service", "agent:support", f"agent:a{turn}", f"user:usr_{turn % 3}", f"key:key_{turn % 8}"]
        scopes += [f"end_user:key_{turn % 8}/{name}" for name in ("*", "guest / 0")]
        for period in PERIODS:
            scope, until = scopes[(turn + number) % len(scopes)], now_ms() + 100 if turn % 2 else None
            house.budgets.put(scope, period, NANO // (1 + turn % 3), until=until)


@on_postgres
def test_everybody_at_once(make: Make, collisions: Log) -> None:
    """Runs near the caps, and two who set them."""
    house = make(user_day=NANO, service_day=NANO, patience=0.5)
    work = [run_for] * 8 + [set_caps] * 2
    done = at_once(len(work), lambda number: work[number](house, number, time.monotonic() + 3))
    assert done == [None] * len(work)
    assert collisions() == [] and house.check().faults == []


@pytest.mark.parametrize("scope", ["service", "user:usr_ada", "key:key_1", "session:ses_1"])
def test_settlement_during_set_cap_counts_once(
    make: Make, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    """Between the sum that is read before the lock and the lock."""
    house = make()
    clock = [budget_windows.now_ms()]
    monkeypatch.setattr("service.usage.reservation.now_ms", lambda: clock[0])
    for module in ("budgets", "budget_windows"):
        monkeypatch.setattr(f"service.usage.{module}.now_ms", lambda: clock[0])
    run = a_run(key="key_1", session="ses_1")
    house.spend(Usage(0, 100), run)
    clock[0] += 2 * budget_windows.FINAL_AFTER
    open_long, open_still = house.reserve(run), house.reserve(run)
    clock[0] += 2 * budget_windows.FINAL_AFTER
    house.spend(Usage(0, 20), run)
    own = scope_locks.own

    def meanwhile(tx: Transaction, scope: str) -> None:
        if not house.db.sqlite:  # which has one writer, and this is it
            house.settle(open_long, Usage(0, 3))
            house.spend(Usage(0, 4), run)
        own(tx, scope)

    monkeypatch.setattr(scope_locks, "own", meanwhile)
    state = house.budgets.put(scope, "total", NANO)
    settled = 120 if house.db.sqlite else 127
    assert (state.spent, state.held) == (settled * 10_000, (2 if house.db.sqlite else 1) * CENT)
    house.settle(open_still, Usage(0, 5))
    assert house.figures(scope, "total")[0] == (settled + 5) * 10_000 and house.check().faults == []


def test_most_of_the_ledger_is_summed_before_the_lock(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make()
    clock = [budget_windows.now_ms()]
    for module in ("reservation", "budgets", "budget_windows"):
        monkeypatch.setattr(f"service.usage.{module}.now_ms", lambda: clock[0])
    house.spend(Usage(0, 100))
    clock[0] += 2 * budget_windows.FINAL_AFTER
    told: list[object] = []
    spent, own = budget_windows.ledger.spent, scope_locks.own
    monkeypatch.setattr(
        budget_windows.ledger, "spent", lambda *given: told.append(given[2:]) or spent(*given)
    )
    monkeypatch.setattr(scope_locks, "own", lambda *given: told.append("lock") or own(*given))
    assert house.budgets.put("service", "total", NANO).spent == 1_000_000
    final = clock[0] - budget_windows.FINAL_AFTER
    assert told == [(0, final), "lock", (final,)]


def test_a_hold_that_waited_too_long_is_made_anew(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    house = make(user_day=NANO)
    clock = [budget_windows.now_ms()]
    monkeypatch.setattr("service.usage.reservation.now_ms", lambda: clock[0])
    refused: list[int] = []

    def write(*works: WriteInTransaction) -> None:
        if not refused:
            clock[0] += LATEST_HOLD + 1
        try:
            house.write(*works)
        except HoldRefused:
            refused.append(1)
            raise

    reserved = house.spending.reserve(wish(a_run()), write, lambda: None)
    assert refused == [1] and reserved.hold.called_at == clock[0]
    assert [hold.called_at for hold in house.db.query(holds.every)] == [clock[0]]
