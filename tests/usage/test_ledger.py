"""The proof over the books finds every kind of damage, and names its row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import budgets, ledger_entries, usage
from service.store import ledger as rows
from service.store.schema import counters, holds, ledger
from service.store.usage import UsageQuery
from service.store.visibility import Visibility
from service.types import NANO, Usage
from tests.usage.conftest import Make
from tests.usage.house import CENT, House, a_run

Damage = Callable[[House, str, str], sa.Executable]


@pytest.fixture
def books(make: Make) -> House:
    """Two settled calls, one open one, a changed cap, and a window whose stripes were dealt out anew."""
    house = make(user_day=NANO, service_day=NANO)
    house.budgets.windows.stripes = 3
    run = a_run()
    reserved = house.reserve(run)
    house.settle(reserved, Usage(100, 200, 300, 50, 20))
    house.settled = reserved.hold.id  # type: ignore[attr-defined]
    house.budgets.put("service", "day", NANO // 2)
    [state] = house.budgets.of(["service"])
    counters = house.db.query(lambda tx: budgets.stripes(tx, [state.window]))[state.window.id]
    house.budgets.windows.with_room(state.window, counters, 0, NANO // 5)  # more than a third of a half
    house.finish(house.spending.settle_worst(house.reserve(run).hold))
    house.open = house.reserve(run).hold.id  # type: ignore[attr-defined]
    assert house.check().faults == []
    return house


def leg(entry: str, kind: str, account: str) -> sa.ColumnElement[bool]:
    return sa.and_(ledger.c.entry_id == entry, ledger.c.kind == kind, ledger.c.account.startswith(account))


def change(table: sa.Table, where: Any, **values: Any) -> sa.Executable:
    return sa.update(table).where(where).values(**values)


def service_counter() -> Any:
    return counters.c.id.like("service/day/%/0")


DAMAGES: dict[str, Damage] = {
    "a counter has spent more": lambda h, s, o: change(
        counters, service_counter(), spent_nano=counters.c.spent_nano + 1
    ),
    "a counter holds less": lambda h, s, o: change(counters, counters.c.scope == "user:usr_ada", held_nano=0),
    "a counter's cap was raised": lambda h, s, o: change(counters, service_counter(), cap_nano=NANO),
    "a counter is gone": lambda h, s, o: sa.delete(counters).where(counters.c.scope == "user:usr_ada"),
    "a counter forgot an entry": lambda h, s, o: change(counters, service_counter(), seq=counters.c.seq - 1),
    "an amount was changed": lambda h, s, o: change(ledger, leg(s, "settle", "upstream"), amount_nano=1),
    "two amounts were changed": lambda h, s, o: (
        sa.update(ledger)
        .where(ledger.c.entry_id == s, ledger.c.kind == "settle", ledger.c.account != "held")
        .values(amount_nano=sa.case((ledger.c.account == "upstream", 1), else_=CENT - 1))
    ),
    "tokens were changed": lambda h, s, o: change(ledger, leg(s, "settle", "upstream"), output_tokens=1),
    "a price was changed": lambda h, s, o: change(
        ledger, leg(s, "settle", "upstream"), price_id="claude-opus-5-5@2026-09-22"
    ),
    "a price nobody knows": lambda h, s, o: change(
        ledger, leg(s, "settle", "upstream"), price_id="x@2026-01-01"
    ),
    "a row is gone": lambda h, s, o: sa.delete(ledger).where(leg(s, "settle", "user:")),
    "a settlement is gone": lambda h, s, o: sa.delete(ledger).where(
        ledger.c.entry_id == s, ledger.c.kind == "settle"
    ),
    "a call is gone": lambda h, s, o: sa.delete(ledger).where(ledger.c.entry_id == s),
    "a hold is gone": lambda h, s, o: sa.delete(ledger).where(
        ledger.c.entry_id == s, ledger.c.kind == "hold"
    ),
    "an open hold's row is gone": lambda h, s, o: sa.delete(holds).where(holds.c.id == o),
    "an open hold holds more": lambda h, s, o: change(holds, holds.c.id == o, amount_nano=CENT + 1),
    "an open hold gives nothing back to its counters": lambda h, s, o: change(
        holds, holds.c.id == o, counters=[]
    ),
    "an open hold is somebody else's": lambda h, s, o: change(holds, holds.c.id == o, user_id="usr_eve"),
    "a call was given to another user": lambda h, s, o: change(
        ledger, ledger.c.entry_id == s, user_id="usr_eve"
    ),
    "a call was given to another agent": lambda h, s, o: change(
        ledger, leg(s, "settle", "upstream"), agent="analyst"
    ),
    "a call was moved to another day": lambda h, s, o: change(
        ledger, leg(s, "settle", "upstream"), called_at=ledger.c.called_at - 86_400_000
    ),
    "another user paid": lambda h, s, o: change(ledger, leg(s, "settle", "user:"), account="user:usr_eve"),
    "counters that nobody can read": lambda h, s, o: change(
        ledger, leg(s, "hold", "held"), counters=[["x", 1]]
    ),
    "a change of a cap is gone": lambda h, s, o: sa.delete(ledger).where(ledger.c.kind == "cap"),
    "a cap's amount was changed": lambda h, s, o: change(ledger, ledger.c.kind == "cap", cap_nano=NANO),
    "stripes were given more than the cap": lambda h, s, o: change(
        ledger, ledger.c.kind == "share", cap_nano=NANO
    ),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_shows(books: House, what: str) -> None:
    settled, still_open = books.settled, books.open  # type: ignore[attr-defined]
    statement = DAMAGES[what](books, settled, still_open)
    assert books.db.transact(lambda tx: tx.execute(statement)) > 0
    faults = books.check().faults
    assert faults, what
    print("\n".join(map(str, faults)))


def test_money_that_a_settlement_left_held_shows(books: House) -> None:
    """Every chain is whole, but a counter holds for a call that is settled."""
    reserved = books.reserve()
    mine = holds.c.id == reserved.hold.id
    books.db.transact(lambda tx: tx.execute(change(holds, mine, counters=[])))
    books.settle(reserved, Usage(100, 200))
    [fault] = books.check().faults
    assert fault.row == f"ledger {reserved.hold.id} settle" and fault.detail.startswith(
        "it leaves money held"
    )


def test_entry_names_its_call_in_one_row(books: House) -> None:
    """And not in each of its rows: they are a third of what a run leaves, and never deleted."""
    about = ("user_id", "agent", "run_id", "step", "model", "price_id")
    query = sa.select(ledger).where(ledger.c.kind.in_(("hold", "settle")))
    found = books.db.query(lambda tx: tx.rows(query.order_by(ledger.c.entry_id)))
    saying = [(row["kind"], row["account"]) for row in found if None not in [row[name] for name in about]]
    others = [row for row in found if (row["kind"], row["account"]) not in saying]
    assert sorted(saying) == 3 * [("hold", "held")] + 2 * [("settle", "upstream")]
    assert len(others) == 3 + 4
    assert {row[name] for row in others for name in about} == {None}


def test_a_row_slipped_in_shows(books: House) -> None:
    about = {
        **dict.fromkeys(ledger.columns.keys()),
        "entry_id": "hld_x",
        "kind": "settle",
        "at": 1,
        "called_at": 1,
    }

    def slip(tx: Any) -> None:
        for account, amount in (("held", -5), ("upstream", 3), ("user:usr_ada", 2)):
            row = {**about, "account": account, "amount_nano": amount, "basis": "worst", "counters": []}
            tx.execute(sa.insert(ledger), {**row, **dict.fromkeys(rows.TOKENS, 0)})

    books.db.transact(slip)
    whats = [fault.detail for fault in books.check().faults]
    assert "it settles a hold that is not in the ledger" in whats and "it books 3 for what costs 5" in whats


def test_a_passed_cap_shows(books: House) -> None:
    """Rows and counters that agree with each other, but with a cap that was passed on the way."""

    def lower(tx: Any) -> None:
        for row in tx.rows(sa.select(ledger).where(ledger.c.counters.is_not(None))):
            entries = [[*entry[:4], 1] for entry in row["counters"]]
            where = (
                (ledger.c.entry_id == row["entry_id"])
                & (ledger.c.kind == row["kind"])
                & (ledger.c.account == row["account"])
            )
            tx.execute(sa.update(ledger).where(where).values(counters=entries))
        tx.execute(sa.update(counters).values(cap_nano=1))

    books.db.transact(lower)
    assert any("pass the cap of 1" in fault.detail for fault in books.check().faults)


def test_ledger_is_read_in_pages(books: House) -> None:
    whole = list(ledger_entries.every(books.db))
    for page in (1, 4, 5, 7):
        assert list(ledger_entries.every(books.db, page=page)) == whole


def test_usage_by_anything(make: Make) -> None:
    house = make()
    house.spend(Usage(100, 50, 1_000), a_run("usr_ada"))
    house.spend(Usage(10, 5), a_run("usr_ada", agent="analyst"))
    house.spend(Usage(1, 1), a_run("usr_bob"))
    found = house.db.query(lambda tx: usage.lines(tx, UsageQuery(0, 2**50, ("user", "agent"))))
    assert [(row["user"], row["agent"], row["calls"], row["input_tokens"]) for row in found] == [
        ("usr_ada", "analyst", 1, 10),
        ("usr_ada", "support", 1, 100),
        ("usr_bob", "support", 1, 1),
    ]
    # 1,000 cached tokens at 0.10 dollars a million in place of 2
    assert found[1]["saved_nano"] == 1_900_000 and found[1]["amount_nano"] == 200_000 + 500_000 + 100_000
    [mine] = house.db.query(lambda tx: usage.lines(tx, UsageQuery(0, 2**50, (), Visibility("usr_bob"))))
    assert mine["calls"] == 1
    [none] = house.db.query(lambda tx: usage.lines(tx, UsageQuery(0, 1)))
    assert (none["calls"], none["amount_nano"]) == (0, 0)
