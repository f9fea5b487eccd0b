"""Connections that are cut within a pipelined transaction, its answers or its commit: each call is booked once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.types import NANO
from service.usage.estimate import Reserved
from tests.chaos.conftest import Postgres
from tests.conftest import wait_until
from tests.cutter import Cutter
from tests.grown.databases import postgres_in
from tests.loopback_proxy import Way
from tests.usage.house import SONNET, USED, House

CUTS = 16  # of each transaction, each way
WARM = 8  # calls after which every statement is prepared


class Bank:
    """House whose connections can be cut; `calls` is the number of calls that it has settled."""

    def __init__(self, server: Postgres, way: Cutter) -> None:
        url = server.url.replace("postgresql://", "postgresql+psycopg://")
        self.way = way
        self.direct = House(url, user_day=100 * NANO)
        self.house = House(url.replace(str(server.port), str(way.port)), create=False, user_day=100 * NANO)
        for _ in range(WARM):
            self.house.spend(USED)
        self.calls = WARM

    def settle(self, reserved: Reserved) -> None:
        self.house.settle(reserved, USED)
        self.calls += 1

    def is_whole(self) -> bool:
        checked = self.direct.check()
        return (checked.faults, checked.held, checked.spent) == ([], 0, self.calls * SONNET.cost(USED))


@pytest.fixture
def server(scratch: Path) -> Iterator[Postgres]:
    with postgres_in(scratch) as server:
        yield server


@pytest.fixture
def bank(server: Postgres) -> Iterator[Bank]:
    with Cutter(server.port).standing() as way:
        made = Bank(server, way)
        yield made
        made.house.db.close()
        made.direct.db.close()


@pytest.mark.parametrize("way", ["asked", "answered"])
def test_a_cut_anywhere_books_each_call_once(bank: Bank, way: Way) -> None:
    bank.way.watch()
    reserved = bank.house.reserve()
    of_hold = bank.way.passed[way]
    bank.way.watch()
    bank.settle(reserved)
    of_settlement = bank.way.passed[way]
    for number in range(CUTS):
        bank.way.cut_after(way, (number + 1) * of_hold // CUTS)
        reserved = bank.house.reserve()
        bank.settle(reserved)
        reserved = bank.house.reserve()
        bank.way.cut_after(way, (number + 1) * of_settlement // CUTS)
        bank.settle(reserved)
    assert bank.way.cuts == 2 * CUTS
    assert bank.is_whole()


def test_a_transaction_that_goes_on_after_the_cut_is_not_done_twice(bank: Bank, server: Postgres) -> None:
    """Its server waits for a lock, and knows nothing of the cut; meanwhile the client tries again."""
    bank.way.watch()
    bank.settle(bank.house.reserve())
    reserved = bank.house.reserve()
    bank.way.watch()
    bank.settle(reserved)
    whole = bank.way.passed["asked"]
    reserved = bank.house.reserve()
    with psycopg.connect(server.url) as other:
        other.execute("SELECT id FROM counters FOR UPDATE")
        bank.way.cut_after("asked", whole)
        settling = threading.Thread(target=bank.settle, args=(reserved,))
        settling.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        wait_until(lambda: bank.way.cuts == 1 and server.sql(waiting), "a transaction that waits")
    settling.join(30)
    assert bank.is_whole()
