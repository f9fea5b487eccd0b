"""Ledger check with running sums: the same faults as the check that holds all entries in memory."""

from __future__ import annotations

import contextlib
import os
import random
import tempfile
import threading
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import BudgetExceeded
from service.store.schema import counters, holds, ledger
from service.types import NANO, Usage, now_ms
from service.usage import counter_snapshot
from service.usage.caps import DAY
from tests.conftest import wait_until
from tests.usage import whole_check
from tests.usage.conftest import Make
from tests.usage.house import TABLE, House, a_run, spend_at
from tests.usage.test_random import empty

EXAMPLES = int(os.environ.get("MONEY_EXAMPLES", "15"))
NUMBERS = {
    ledger: ("amount_nano", "output_tokens", "cap_nano"),
    counters: ("seq", "spent_nano", "held_nano", "cap_nano"),
    holds: ("amount_nano",),
}


def fill(house: House, chance: random.Random) -> None:
    """Calls of several days, most of them settled; caps that are set, changed and dealt out anew."""
    for number in range(chance.randrange(4, 16)):
        what = chance.randrange(6)
        if what == 0:
            scope = chance.choice(["service", "user:usr_1", "agent:support"])
            period: Any = chance.choice(["day", "month", "total"])
            house.budgets.put(scope, period, chance.choice([None, NANO, NANO // 20]))
        elif what == 1:
            with contextlib.suppress(BudgetExceeded):
                spend_at(house, now_ms() - chance.randrange(4) * DAY, f"usr_{number % 2}")
        else:
            with contextlib.suppress(BudgetExceeded):
                reserved = house.reserve(a_run(f"usr_{number % 2}", id=f"run_{number}"))
                if chance.random() < 0.8:
                    house.settle(
                        reserved, Usage(chance.randrange(500), chance.randrange(reserved.max_tokens))
                    )


def damage(house: House, chance: random.Random) -> None:
    """Change, delete or repeat one row, or one state that an entry tells."""
    table = chance.choice([ledger, ledger, ledger, counters, holds])
    found = house.db.query(lambda tx: tx.rows(sa.select(table)))
    if not found:
        return
    row: dict[str, Any] = dict(chance.choice(found))
    mine = sa.and_(*(column == row[column.key] for column in table.primary_key))
    states = row.get("counters") if table is ledger else None
    if chance.random() < 0.2:
        work: sa.Executable = sa.delete(table).where(mine)
    elif states and chance.random() < 0.5:
        state = chance.choice(states)
        state[chance.randrange(1, 5)] += chance.choice([-1, 1])
        work = sa.update(table).where(mine).values(counters=states)
    elif table is ledger and chance.random() < 0.2:
        work = sa.insert(ledger).values(**{**row, "entry_id": f"{row['entry_id'][:-1]}~"})
    else:
        name = chance.choice(NUMBERS[table])
        work = sa.update(table).where(mine).values({name: (row[name] or 0) + chance.choice([-1, 1, NANO])})
    house.db.transact(lambda tx: tx.execute(work))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.integers(0, 3), st.integers(1, 3))
def test_random_books_with_random_faults(seed: int, faults: int, stripes: int) -> None:
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        file = Path(folder) / "money.db"
        file.write_bytes(empty())
        house = House(f"sqlite:///{file}", patience=0, create=False, user_day=NANO, service_day=NANO)
        house.budgets.windows.stripes = stripes
        try:
            fill(house, chance)
            for _ in range(faults):
                damage(house, chance)
            wanted, found = whole_check.check(house.db, TABLE), house.check()
        finally:
            house.db.close()
    assert sorted(map(str, found.faults)) == sorted(map(str, wanted.faults))
    assert found[:4] == wanted[:4] and found.more == 0


def test_check_finds_no_fault_during_concurrent_spending(make: Make) -> None:
    """Its readings are of different moments, and calls begin and end between them."""
    house = make(user_day=NANO * 100, service_day=NANO * 100)
    over = threading.Event()

    def spend(number: int) -> None:
        while not over.is_set():
            house.spend(Usage(100, 200), a_run(f"usr_{number}"))

    threads = [threading.Thread(target=spend, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: house.check().entries, "the first entry")
        found = [house.check()]
        while len(found) < 8 or found[-1].entries == found[0].entries:
            found.append(house.check())
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert [checked.faults for checked in found] == [[]] * len(found)
    assert house.check().faults == []


def test_check_holds_one_sum_per_day(make: Make) -> None:
    """Twice the calls take no more memory; of windows that are over no counter is kept."""
    house = make(user_day=NANO, service_day=NANO)
    for days in range(2, 6):
        for number in range(6):
            spend_at(house, now_ms() - days * DAY, f"usr_{number}")
    spend_at(house, now_ms(), "usr_1")
    taken = counter_snapshot.CounterSnapshot.take(house.db)
    assert taken.counters > 4 * 6 and {counter_snapshot.span_of(name) for name in taken.last} == {
        ("day", now_ms() // DAY * DAY)
    }
    assert house.check().faults == []
    assert len(taken.sums) == 5
