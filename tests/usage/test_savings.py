"""Savings: answers without a call, counted in memory and written once; what the Batches API saved, in the ledger."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import DatabaseUnavailable
from service.jobs.upkeep import delete_expired
from service.store import savings as rows
from service.store import usage
from service.store.schema import SAVED, ledger, savings_daily, savings_hourly
from service.store.usage import UsageQuery
from service.types import Run, Usage, now_ms
from service.usage import savings
from service.usage.savings import Savings
from tests.usage.calls import TODAY
from tests.usage.conftest import Make
from tests.usage.house import SONNET, House, a_run


@pytest.fixture
def house(make: Make) -> House:
    return make()


def answered(cache: str = "hit", **fields: Any) -> Run:
    run = a_run(**fields)
    run.cache = cache
    return run


def totals(house: House) -> tuple[int, ...]:
    row = house.db.query(lambda tx: usage.total(tx, UsageQuery(0, now_ms() + 1)))
    assert row["calls"] == 0
    return tuple(row[name] for name in SAVED)


def test_answers_of_several_threads_are_each_counted_once(house: House) -> None:
    tally = Savings(house.db, house.metrics.saved)

    def work() -> None:
        for cache, saved in (("hit", 7), ("near", 5), ("coalesced", 3), ("miss", 1), ("stale", 1)) * 40:
            tally.add(answered(cache), "m", saved)
        tally.write()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.write()
    assert totals(house) == (160, 160, 160, 160 * 7, 160 * 5, 160 * 3)
    told = house.metrics.render()[0].decode().splitlines()
    assert sum(line.startswith("slipway_saved_usd_total") for line in told) == 3


def test_what_could_not_be_written_is_written_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    tally, transact = Savings(house.db), house.db.transact
    tally.add(answered(), "m", 7)

    def away(*_: Any, **__: Any) -> None:
        tally.add(answered(), "m", 2)  # meanwhile
        raise DatabaseUnavailable("The database is away.")

    monkeypatch.setattr(house.db, "transact", away)
    with pytest.raises(DatabaseUnavailable):
        tally.write()
    tally.close()  # raises nothing
    monkeypatch.setattr(house.db, "transact", transact)
    tally.write()
    assert totals(house)[0] == 3 and totals(house)[3] == 11


def test_memory_is_bounded(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(savings, "MAX_KEYS", 3)
    tally = Savings(house.db)
    for number in range(5):
        tally.add(answered(), f"m{number}", 1)
    tally.add(answered(), "m0", 1)  # one that is there still counts
    tally.write()
    assert totals(house)[0] == 4
    assert [record.message for record in caplog.records].count("savings_not_counted") == 1
    tally.write()
    assert [record.message for record in caplog.records].count("savings_not_counted") == 1


def test_hours_expire_and_days_stay(house: House) -> None:
    key = ("usr_a", "", "", "support", "m")
    old = (TODAY - 402) * 24
    found = {(hour, *key): [1, 0, 0, 7, 0, 0] for hour in (old, old + 1, TODAY * 24)}
    house.db.transact(lambda tx: rows.add(tx, found))
    assert delete_expired(house.db, 30)["savings"] == 2
    count = sa.select(sa.func.count().label("count"))
    left = {
        table.name: house.db.query(lambda tx, table=table: tx.row(count.select_from(table)))["count"]  # type: ignore[misc]
        for table in (savings_hourly, savings_daily)
    }
    assert left == {"savings_hourly": 1, "savings_daily": 2}


def test_cost_and_savings_of_a_batch_sum_to_the_plain_price(house: House) -> None:
    used = Usage(100, 200, cache_read_input_tokens=1_000, server_tool_requests=1)
    reserved = house.reserve()
    house.write(house.spending.settle(reserved.hold, SONNET.in_batch(), used).work)
    house.spend(used)
    amounts = sa.select(ledger.c.amount_nano, ledger.c.saved_nano, ledger.c.batch_saved_nano)
    batched, plain = house.db.query(
        lambda tx: tx.rows(
            amounts.where(ledger.c.account == "upstream").order_by(ledger.c.at, ledger.c.entry_id)
        )
    )
    price = SONNET.cost(Usage(1_100, 200, server_tool_requests=1))
    assert sum(batched.values()) == sum(plain.values()) == price
    assert batched["batch_saved_nano"] > 0 == plain["batch_saved_nano"]
