"""Windows that are over are rolled into one row, and the proof over the books still finds every kind of damage."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.store import closed_windows
from service.store.schema import closed_windows as table
from service.store.schema import counters, holds, ledger
from service.types import NANO, now_ms
from service.usage.caps import DAY, closed_before
from tests.usage.conftest import Make
from tests.usage.house import House, at_once, hold_at, spend_at


def roll_up(house: House, limit: int = 1_000) -> int:
    return house.db.transact(lambda tx: closed_windows.roll_up(tx, closed_before(now_ms()), limit))


def rows(house: House, table: sa.Table, *where: Any) -> list[Any]:
    return house.db.query(lambda tx: tx.rows(sa.select(table).where(*where)))


@pytest.fixture
def house(make: Make) -> House:
    """Five days of two users' calls, one of which, three days old, is not settled yet."""
    house = make(user_day=NANO, service_day=NANO)
    house.budgets.windows.stripes = 2
    house.budgets.put("user:usr_ada", "total", NANO)
    for days in (5, 4, 3, 1, 0):
        for user in ("usr_ada", "usr_bob"):
            spend_at(house, now_ms() - days * DAY, user)
    house.open = hold_at(house, now_ms() - 3 * DAY, "usr_ada")  # type: ignore[attr-defined]
    assert house.check().faults == []
    return house


def test_closed_windows_become_one_row_a_day(house: House) -> None:
    before = rows(house, counters)
    assert len(before) == 4 * 5 + 1, "two stripes of the service and two users a day, and a total"
    gone = roll_up(house)
    left = rows(house, counters)
    assert gone == 4 * 3 - 2 and len(left) == len(before) - gone, "what still holds money stays"
    assert {row["period"] for row in left if row["held_nano"]} == {"day", "total"}
    days = rows(house, table)
    assert [row["counters"] for row in sorted(days, key=lambda row: row["starts_at"])] == [4, 4, 2]
    spent = sum(row["spent_nano"] for row in (*days, *left) if row["period"] == "day")
    assert spent == sum(row["spent_nano"] for row in before if row["period"] == "day")
    assert house.check().faults == []
    house.finish(house.spending.settle_unused(house.open))  # type: ignore[attr-defined]
    assert house.check().faults == []
    assert roll_up(house) == 2 and roll_up(house) == 0
    assert sorted(row["counters"] for row in rows(house, table)) == [4, 4, 4]
    assert house.check().faults == []


def test_in_batches_and_by_several_at_once(house: House) -> None:
    house.finish(house.spending.settle_unused(house.open))  # type: ignore[attr-defined]

    def some(_: int) -> int:
        return sum(iter(lambda: roll_up(house, 1), 0))

    assert sum(at_once(3, some)) == 12
    assert sorted(row["counters"] for row in rows(house, table)) == [4, 4, 4]
    assert house.check().faults == []


def test_a_month_is_rolled_up_too(make: Make) -> None:
    house = make()
    house.budgets.put("user:usr_ada", "month", NANO)
    spend_at(house, now_ms() - 70 * DAY)
    spend_at(house, now_ms())
    assert roll_up(house) == 1
    assert [row["period"] for row in rows(house, table)] == ["month"]
    assert house.check().faults == []


DAMAGES = {
    "its last call is gone": lambda entry, start: sa.delete(ledger).where(ledger.c.entry_id == entry),
    "an opening is gone": lambda entry, start: sa.delete(ledger).where(
        ledger.c.kind == "open", ledger.c.account == f"user:usr_bob/day/{start}"
    ),
    "an amount was changed": lambda entry, start: (
        sa.update(ledger)
        .where(ledger.c.entry_id == entry, ledger.c.account == "upstream")
        .values(amount_nano=1)
    ),
    "the row says other sums": lambda entry, start: sa.update(table).values(
        spent_nano=table.c.spent_nano + 1
    ),
    "the row says other counters": lambda entry, start: sa.update(table).values(
        counters=table.c.counters - 1
    ),
    "the row says other states": lambda entry, start: sa.update(table).values(digest=table.c.digest - 1),
    "the row is gone": lambda entry, start: sa.delete(table),
    "the unsettled one's counter is gone": lambda entry, start: sa.delete(counters).where(
        counters.c.held_nano > 0, counters.c.period == "day", counters.c.scope != "service"
    ),
    "a hold is gone": lambda entry, start: sa.delete(holds),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_is_found_after_the_roll_up(house: House, what: str) -> None:
    at = now_ms() - 5 * DAY
    entry = spend_at(house, at, "usr_bob").id
    assert roll_up(house) == 10 and house.check().faults == []
    statement = DAMAGES[what](entry, at - at % DAY)
    assert house.db.transact(lambda tx: tx.execute(statement)) > 0
    faults = house.check().faults
    print("\n".join(map(str, faults)))
    assert faults
