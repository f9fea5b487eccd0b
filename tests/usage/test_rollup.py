"""Reports are the ledger's sums, whatever has been rolled up: of random calls, killed upkeep and wrong clocks."""

from __future__ import annotations

import itertools
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from service.store import rollup
from service.store import usage as reports
from service.store.database import Database
from service.store.schema import holds, usage_daily, usage_daily_by_user, usage_days
from service.store.usage import DAY_MS, GROUPS, HOUR_MS, UsageQuery
from service.store.visibility import UNRESTRICTED, Visibility
from service.types import Usage
from service.usage.rollup import check, roll_up
from tests.conftest import ROOT
from tests.usage.calls import TODAY, Call, answer, answers, book, expected, some, told
from tests.usage.conftest import Make
from tests.usage.house import House, at_once

FIRST = TODAY - 6
VIEWS = (
    UNRESTRICTED,
    Visibility("usr_0001"),
    Visibility(None, ("agents:support",)),
    Visibility("usr_0002", ("agents:supp*",)),
)
BY = [(), ("day",), ("agent",), ("model", "agent"), ("user",), ("key",), ("agent", "user"), ("hour", "user")]
BY += [("agent", "day"), ("day", "agent", "model", "user"), ("key", "user", "day"), GROUPS]
SPANS = [
    (FIRST * DAY_MS, (TODAY + 1) * DAY_MS),
    ((FIRST + 1) * DAY_MS + 1, TODAY * DAY_MS + 5 * HOUR_MS),
    ((FIRST + 2) * DAY_MS - 1, (FIRST + 2) * DAY_MS + 1),
]


@pytest.fixture
def house(make: Make) -> House:
    return make()


def read(db: Database, asked: UsageQuery, **more: Any) -> list[tuple[Any, ...]]:
    return told(db.query(lambda tx: reports.lines(tx, asked, **more)), asked)


def closed(db: Database) -> list[int]:
    return db.query(rollup.closed_days)


def questions(seed: int, count: int = 25) -> Iterator[UsageQuery]:
    """Some of all reports that these groups, spans and callers make."""
    for by, span, view in random.Random(seed).sample([*itertools.product(BY, SPANS, VIEWS)], count):
        yield UsageQuery(*span, tuple(by), view)


def all_right(db: Database, calls: list[Call], asked: Iterator[UsageQuery]) -> None:
    for question in asked:
        assert read(db, question) == expected(calls, question), question
        total = db.query(lambda tx, question=question: reports.total(tx, question))  # type: ignore[misc]
        assert told([total], UsageQuery(0, 1)) == expected(calls, question._replace(by=())), question
    assert list(check(db)) == []


def test_rolled_up_and_open_days_sum_to_the_ledger(house: House) -> None:
    calls = some(300, FIRST, TODAY + 1)
    book(house.db, calls)
    all_right(house.db, calls, questions(0))
    roll_up(house.db, batches=15, size=10)
    assert 0 < len(closed(house.db)) < 5
    all_right(house.db, calls, questions(1))
    while roll_up(house.db):
        pass
    assert set(closed(house.db)) | {TODAY - 1} == {
        *range(FIRST, TODAY)
    }  # yesterday only after an hour of today
    all_right(house.db, calls, questions(2))
    late = some(50, TODAY, TODAY + 1, seed=2)
    book(house.db, late)
    all_right(house.db, calls + late, questions(3))


def test_answers_without_a_call_are_in_every_report(house: House) -> None:
    calls: list[Call] = [*some(100, FIRST, TODAY + 1)]
    given = answers(120, FIRST, TODAY + 1, seed=3)
    book(house.db, calls)
    roll_up(house.db, batches=15, size=10)
    answer(house.db, given)
    all_right(house.db, [*calls, *given], questions(6, 40))
    for asked in questions(7, 10):
        whole, pages, after = read(house.db, asked), list[tuple[Any, ...]](), None
        while asked.by and (page := read(house.db, asked, limit=13, after=after)):
            pages += page
            after = page[-1][: len(asked.by)]
        assert not asked.by or pages == whole, asked


def test_pages_are_the_whole_report(house: House) -> None:
    calls = some(400, FIRST, TODAY + 1, users=30)
    book(house.db, calls)
    roll_up(house.db, batches=4, size=50)
    for asked in questions(5):
        if not asked.by:
            continue
        found: list[tuple[Any, ...]] = []
        after = None
        while page := read(house.db, asked, limit=17, after=after):
            found += page
            after = page[-1][: len(asked.by)]
        assert found == expected(calls, asked), asked


def test_a_cursor_does_not_depend_on_rows_that_come_in(house: House) -> None:
    calls = some(200, FIRST, TODAY)
    book(house.db, calls)
    for by in [("day", "user", "agent"), ("user", "agent", "model"), ("agent", "model", "key")]:
        asked = UsageQuery(0, TODAY * DAY_MS, by)
        whole = read(house.db, asked)
        first = read(house.db, asked, limit=5)
        book(
            house.db, [Call(FIRST * DAY_MS - 1, "usr_", "a", "m")]
        )  # before all of them, whatever the groups
        roll_up(house.db)
        rest = read(house.db, asked, after=first[-1][:3])
        assert [*first, *rest] == whole


def test_a_day_with_an_open_hold_is_not_closed(house: House) -> None:
    """The call was made on a day that is long over; until it is settled nobody knows what it costs."""
    reserved = house.reserve()
    on = (TODAY - 3) * DAY_MS + 5
    house.write(lambda tx: tx.execute(sa.update(holds).values(called_at=on)))
    calls = [Call(on - 5), Call(on + DAY_MS)]
    book(house.db, calls)
    while roll_up(house.db):
        pass
    assert closed(house.db) == [TODAY - 2]
    cost = house.settle(reserved, Usage(3, 2, 1))
    asked = UsageQuery(0, TODAY * DAY_MS, ("day",))
    settled = [row[:4] for row in read(house.db, asked)]
    assert settled == [(TODAY - 3, 2, 6, 4), (TODAY - 2, 1, 3, 2)]
    while roll_up(house.db):
        pass
    assert closed(house.db) == [TODAY - 3, TODAY - 2]
    assert [row[:4] for row in read(house.db, asked)] == settled
    assert read(house.db, UsageQuery(0, TODAY * DAY_MS))[0][5] == cost + 14
    assert list(check(house.db)) == []


def test_days_without_calls_leave_no_gaps_and_a_hold_on_one_does(house: House) -> None:
    house.reserve()
    house.write(lambda tx: tx.execute(sa.update(holds).values(called_at=(TODAY - 4) * DAY_MS)))
    book(house.db, [Call((TODAY - 6) * DAY_MS), Call((TODAY - 2) * DAY_MS)])
    while roll_up(house.db):
        pass
    assert closed(house.db) == [TODAY - 6, TODAY - 5, TODAY - 3, TODAY - 2]


def test_a_call_that_a_wrong_clock_books_on_a_closed_day_is_counted_in(house: House) -> None:
    calls = some(50, FIRST, FIRST + 3)
    book(house.db, calls)
    while roll_up(house.db):
        pass
    for day in (FIRST + 1, FIRST + 2):
        slipped = Call(day * DAY_MS + 9, "usr_late", "late", "m")
        book(house.db, [slipped])
        calls.append(slipped)
        assert {fault.row for fault in check(house.db)} == {
            f"usage_daily {day} late m",
            f"usage_daily_by_user {day} usr_late  late m",
        }
        for _ in range(4):  # each turn looks at the last day, and at the one not looked at for the longest
            roll_up(house.db)
        all_right(house.db, calls, iter([UsageQuery(0, TODAY * DAY_MS, ("day", "agent"))]))
        assert closed(house.db) == [FIRST, FIRST + 1, FIRST + 2]


DAMAGES: dict[str, Callable[[], Any]] = {
    "a sum is higher": lambda: sa.update(usage_daily).values(amount_nano=usage_daily.c.amount_nano + 1),
    "a user's sum is lower": lambda: sa.update(usage_daily_by_user).values(calls=0),
    "a row is gone": lambda: sa.delete(usage_daily),
    "a user's row is gone": lambda: sa.delete(usage_daily_by_user).where(
        usage_daily_by_user.c.agent == "support"
    ),
    "a day is another": lambda: sa.update(usage_daily).values(day=usage_daily.c.day + 100),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_damage_shows(house: House, what: str) -> None:
    book(house.db, some(50, FIRST, FIRST + 1))
    while roll_up(house.db):
        pass
    assert list(check(house.db)) == []
    assert house.db.transact(lambda tx: tx.execute(DAMAGES[what]())) > 0
    assert [fault for fault in check(house.db) if f" {FIRST} " in fault.row]


def test_a_day_whose_row_is_gone_is_summed_anew(house: House) -> None:
    """Repair of wrong sums by hand works in the same way."""
    calls = some(50, FIRST, FIRST + 1)
    book(house.db, calls)
    while roll_up(house.db):
        pass
    house.db.transact(lambda tx: tx.execute(DAMAGES["a sum is higher"]()))
    house.db.transact(lambda tx: tx.execute(sa.delete(usage_days)))
    while roll_up(house.db):
        pass
    assert closed(house.db) == [FIRST] and list(check(house.db)) == []
    all_right(house.db, calls, iter([UsageQuery(0, TODAY * DAY_MS, ("day", "user"))]))


def test_concurrent_roll_ups_add_each_call_once(house: House, caplog: pytest.LogCaptureFixture) -> None:
    calls = some(300, FIRST, TODAY - 1)
    book(house.db, calls)
    done = at_once(4, lambda number: roll_up(house.db, batches=60, size=5))
    assert all(isinstance(each, int) for each in done), done
    while roll_up(house.db):
        pass
    assert closed(house.db) == [*range(FIRST, TODAY - 1)]
    assert "usage_day_reopened" not in caplog.text, "a recount hides calls added twice"
    all_right(house.db, calls, iter([UsageQuery(0, TODAY * DAY_MS, ("day", "user", "key"))]))


def test_second_roll_up_of_a_batch_takes_the_next(house: House) -> None:
    book(house.db, [Call(FIRST * DAY_MS + number) for number in range(40)])
    roll_up(house.db, batches=1, size=10)
    second = partial(rollup.roll, day=FIRST, size=10)
    other = threading.Thread(target=house.db.transact, args=(second,))
    with house.db.begin() as tx:
        second(tx)
        other.start()
        other.join(1.0)  # until it waits, or has read how far the day was
    other.join()
    [row] = house.db.query(lambda tx: tx.rows(sa.select(usage_days)))
    assert (row["calls"], row["rolled_until"]) == (30, FIRST * DAY_MS + 30)
    [sums] = house.db.query(lambda tx: tx.rows(sa.select(usage_daily)))
    assert sums["calls"] == 30


def test_killed_upkeep_and_writers_leave_reports_exact(house: House, url: str) -> None:
    """Others book calls and settle holds of earlier days while the process that rolls up is killed again and again."""
    chance = random.Random(3)
    calls = some(150, FIRST, TODAY - 1)
    book(house.db, calls)
    asked = [UsageQuery(0, (TODAY + 1) * DAY_MS, by) for by in (("day", "agent"), ("user", "key"), ())]
    for turn in range(3):
        command = [sys.executable, "-m", "tests.usage.roller", url]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None and process.stdout.readline() == "ready\n"
                for number in range(10):
                    fresh = some(3, TODAY, TODAY + 1, seed=100 * turn + number)
                    book(house.db, fresh)
                    calls += fresh
                    question = chance.choice(asked)
                    assert read(house.db, question) == expected(calls, question)
            finally:
                process.kill()
    while roll_up(house.db):
        pass
    assert closed(house.db) == [*range(FIRST, TODAY - 1)]
    all_right(house.db, calls, iter(asked))


def test_unfinished_day_is_counted_once(house: House) -> None:
    book(house.db, [Call(FIRST * DAY_MS + number) for number in range(40)])
    roll_up(house.db, batches=1, size=10)
    [row] = house.db.query(lambda tx: tx.rows(sa.select(usage_days)))
    assert row["calls"] == 10 and row["checked_at"] is None
    assert read(house.db, UsageQuery(0, TODAY * DAY_MS))[0][0] == 40
