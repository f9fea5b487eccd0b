"""Slots of cron expressions: against a clock that is read minute by minute, around each change of the clock."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim

from service.errors import Invalid
from service.schedules.cron import Cron, zones

MINUTE = timedelta(minutes=1)
# Half an hour, at midnight, two hours, south, none.
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Africa/Casablanca",
    "Asia/Kolkata",
    "UTC",
)
INTERVALS = ("* * * * *", "*/15 * * * *", "*/7 1,2 * * *", "30 * * * *", "0 */2 * * *", "*/20 0-3 * * SUN")
TIMES = (
    "30 2 * * *",
    "0,30 2,3 * * *",
    "15 1 * * *",
    "0 0 * * *",
    "5 0-4 * * SUN",
    "59 23 * * *",
    "45 1-2 * * *",
)


def ms(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc]


def slots(cron: Cron, begin: datetime, days: int) -> list[int]:
    end = int((begin + timedelta(days=days)).timestamp() * 1000)
    found, at = [], int(begin.timestamp() * 1000) - 1
    while (at := cron.following(at)) < end:
        found.append(at)
    return found


def fitting(text: str, begin: datetime, days: int) -> set[datetime]:
    """Local times that fit, whatever the clock does."""
    start = (begin - timedelta(days=1)).replace(tzinfo=None)
    return set(takewhile(lambda wall: wall < start + timedelta(days=days + 2), CronSim(text, start - MINUTE)))


def walls(zone: str, begin: datetime, days: int) -> list[tuple[datetime, datetime]]:
    """Each minute of some days with its local time."""
    moments = [begin + n * MINUTE for n in range(days * 1440)]
    return [(moment, moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)) for moment in moments]


def changes(zone: str, year: int) -> list[datetime]:
    """Days on which the clock changes; with one on which it does not."""
    days = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(365)]
    place = ZoneInfo(zone)
    moved = [
        day
        for day in days
        if day.astimezone(place).utcoffset() != (day + timedelta(days=1)).astimezone(place).utcoffset()
    ]
    return [*moved, datetime(year, 6, 12, tzinfo=UTC)]


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", INTERVALS)
def test_interval_has_each_moment_whose_local_time_fits(zone: str, text: str) -> None:
    for day in changes(zone, 2026):
        begin = day - timedelta(days=1)
        fits = fitting(text, begin, 3)
        expected = [int(at.timestamp() * 1000) for at, wall in walls(zone, begin, 3) if wall in fits]
        assert slots(Cron(text, zone), begin, 3) == expected, day


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("text", TIMES)
def test_time_of_day_comes_once_a_day_and_after_a_gap_where_there_is_one(zone: str, text: str) -> None:
    for day in changes(zone, 2026):
        begin = day - timedelta(days=1)
        there = walls(zone, begin, 3)
        first = {wall: at for at, wall in reversed(there)}
        fits = {wall for wall in fitting(text, begin, 3) if there[0][1] <= wall <= there[-1][1]}
        # The first minute that exists, of those that come twice the first.
        expected = {first.get(wall) or min(at for at, other in there if other > wall) for wall in fits}
        found = slots(Cron(text, zone), begin, 3)
        assert found == sorted({int(at.timestamp() * 1000) for at in expected}), day


def test_named_cases_of_berlin() -> None:
    daily, quarter = Cron("30 2 * * *", "Europe/Berlin"), Cron("*/30 * * * *", "Europe/Berlin")
    assert daily.following(ms(2026, 3, 28, 12)) == ms(2026, 3, 29, 1)  # 03:00, as 02:30 does not exist
    assert daily.following(ms(2026, 3, 29, 1)) == ms(2026, 3, 30, 0, 30)
    assert daily.following(ms(2026, 10, 24, 12)) == ms(2026, 10, 25, 0, 30)  # the first 02:30
    assert daily.following(ms(2026, 10, 25, 0, 30)) == ms(2026, 10, 26, 1, 30)  # and not the second
    assert daily.following(ms(2026, 10, 25, 1, 10)) == ms(2026, 10, 26, 1, 30)
    twice = [ms(2026, 10, 25, 0), ms(2026, 10, 25, 0, 30), ms(2026, 10, 25, 1), ms(2026, 10, 25, 1, 30)]
    assert [quarter.following(slot - 1) for slot in twice] == twice


def test_leap_days_are_found() -> None:
    assert Cron("0 12 29 2 *", "UTC").following(ms(2096, 3, 1)) == ms(2104, 2, 29, 12)
    assert Cron("*/5 12 29 2 *", "UTC").following(ms(2096, 3, 1)) == ms(2104, 2, 29, 12)


@pytest.mark.parametrize("seed", range(20))
def test_recent_slots_are_the_last_of_all(seed: int) -> None:
    rng = random.Random(seed)
    cron = Cron(rng.choice(INTERVALS + TIMES), rng.choice(ZONES))
    first = cron.following(ms(2026, 3, 20) + rng.randrange(86_400_000))
    until = first + rng.randrange(12 * 86_400_000)
    every = [first]
    while (slot := cron.following(every[-1])) <= until:
        every.append(slot)
    for most in (1, 2, 101):
        assert cron.recent(first, until, most) == every[-most:]


def test_recent_slots_of_years_of_minutes_are_found_without_reading_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    following = Cron.following

    def counting(self: Cron, after: int) -> int:
        asked.append(after)
        return following(self, after)

    monkeypatch.setattr(Cron, "following", counting)
    until = ms(2026, 11, 30)
    assert Cron("* * * * *", "UTC").recent(ms(2020, 1, 1), until, 101)[-1] == until
    assert len(asked) < 500


@pytest.mark.parametrize(
    "text",
    [
        *("", "* * * *", "* * * * * *", "@daily", "60 * * * *", "* 24 * * *", "a * * * *", "0 0 31 2 *"),
        *(
            "* * * * 9",
            "*/0 * * * *",
            "5-1 * * * *",
            "\u0663 * * * *",
            "0" * 200 + " * * * *",
            "0 0 30 2 */2",
        ),
        "é * * * *",
    ],
)
def test_expression_without_slots_is_refused(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        Cron.checked(text, "UTC")
    assert refused.value.errors[0]["pointer"] == "/cron"


@pytest.mark.parametrize("zone", ["", "Europe/Nowhere", "../UTC", "/etc/localtime", "CEST", "utc"])
def test_unknown_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(Invalid) as refused:
        Cron.checked("* * * * *", zone)
    assert refused.value.errors[0]["pointer"] == "/timezone"
    assert {"UTC", "Europe/Berlin"} <= zones()


def test_made_up_expressions_are_accepted_or_refused_and_nothing_else() -> None:
    rng = random.Random(22)
    accepted = 0
    for number in range(4_000):
        fields = ["*"] * 5
        for at in {number % 5, rng.randrange(5)}:
            fields[at] = "".join(rng.choices("0123456789*,-/#LWMONsun", k=rng.randint(1, 4)))
        text = " ".join(fields)
        try:
            cron = Cron.checked(text, "Europe/Berlin")
        except Invalid:
            continue
        accepted += 1
        assert cron.following(ms(2026, 11, 30)) > ms(2026, 11, 30)
    assert accepted > 100
