"""Plans for missed slots, by policy."""

from __future__ import annotations

import pytest

from service.schedules.cron import Cron
from service.schedules.plan import MOST_MISSED, Plan, plan

CRON = Cron("* * * * *", "UTC")
MINUTE = 60_000
FIRST = 29_000_000 * MINUTE


def at(number: int) -> int:
    return FIRST + number * MINUTE


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
@pytest.mark.parametrize("late", [0, 1, MINUTE - 1])
def test_slot_on_time_runs_by_any_policy(missed: str, late: int) -> None:
    assert plan(CRON, missed, FIRST, FIRST + late) == Plan(None, FIRST, at(1))  # type: ignore[arg-type]


def test_skip_leaves_missed_slots_out_and_runs_the_one_on_time() -> None:
    assert plan(
        Cron("0 * * * *", "UTC"), "skip", FIRST - FIRST % 3_600_000, FIRST - FIRST % 3_600_000 + MINUTE
    ) == (Plan((FIRST - FIRST % 3_600_000,) * 2, None, FIRST - FIRST % 3_600_000 + 3_600_000))
    assert plan(CRON, "skip", FIRST, at(1)) == Plan((FIRST, FIRST), at(1), at(2))
    assert plan(CRON, "skip", FIRST, at(5) + 1) == Plan((FIRST, at(4)), at(5), at(6))


def test_once_runs_the_last_of_missed_slots() -> None:
    daily = Cron("0 6 * * *", "UTC")
    first = daily.following(FIRST)
    third = daily.following(daily.following(first))
    late = third + 7 * 3_600_000
    assert plan(daily, "once", first, late) == Plan(
        (first, daily.following(first)), third, daily.following(third)
    )
    assert plan(daily, "once", third, late) == Plan(None, third, daily.following(third))


def test_all_runs_each_missed_slot_oldest_first_within_a_bound() -> None:
    assert plan(CRON, "all", FIRST, at(5)) == Plan(None, FIRST, at(1))
    last = 3 * MOST_MISSED
    begin = last - MOST_MISSED + 1
    assert plan(CRON, "all", FIRST, at(last)) == Plan((FIRST, at(begin - 1)), at(begin), at(begin + 1))


def test_slot_of_an_older_time_zone_database_runs() -> None:
    assert (
        plan(Cron("7 * * * *", "UTC"), "skip", FIRST - FIRST % 3_600_000, FIRST - FIRST % 3_600_000).slot
        is not None
    )


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
@pytest.mark.parametrize("due", [1, 2, 99, 100, 101, 102, 500])
def test_every_due_slot_is_run_or_skipped_once(missed: str, due: int) -> None:
    now, first, told = at(due - 1), FIRST, []
    runs = 0
    while first <= now:
        found = plan(CRON, missed, first, now)  # type: ignore[arg-type]
        if found.skipped:
            told += range(found.skipped[0], found.skipped[1] + 1, MINUTE)
        if found.slot is not None:
            told.append(found.slot)
            runs += 1
        first = found.next_at
    assert told == [at(n) for n in range(due)]
    assert runs == (min(due, MOST_MISSED) if missed == "all" else 1)
