"""Calendar: events of each week, and bookings between them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_servers import appointments
from mcp_servers.store import Refused
from tests.mcp_servers.house import Desk

CALL = {"title": "Call with Grace", "start": "2026-12-01T10:00", "minutes": 30}  # a Tuesday
Use = Callable[..., dict[str, Any]]


@pytest.fixture
def use(tmp_path: Path) -> Use:
    tools = {tool.name: tool for tool in appointments.tools(tmp_path / "mcp")}
    return lambda name, arguments, key="": tools[name].call(arguments, key)


@pytest.fixture
def bookings(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    return Desk(tmp_path).bookings


def test_list_shows_events_and_bookings_of_the_days_in_order(use: Use) -> None:
    use("book", CALL)
    listed = use("list", {"from": "2026-12-01", "days": 2})
    assert [(event["day"], event["start"], event["title"]) for event in listed["events"]] == [
        ("Tuesday", "2026-12-01T09:00", "Stand-up"),
        ("Tuesday", "2026-12-01T10:00", "Call with Grace"),
        ("Tuesday", "2026-12-01T14:00", "Interview"),
        ("Wednesday", "2026-12-02T09:00", "Stand-up"),
        ("Wednesday", "2026-12-02T15:00", "Design review"),
    ]
    assert (listed["from"], listed["to"]) == ("2026-12-01", "2026-12-02")


def test_list_begins_today_and_every_week_has_events(use: Use) -> None:
    before = datetime.now(UTC)
    listed = use("list", {})
    days = {f"{before + timedelta(days=number):%Y-%m-%d}" for number in (0, 1)}  # midnight may pass
    assert listed["from"] == listed["today"] and listed["today"] in days
    assert len(listed["events"]) == len(appointments.WEEKLY)


@pytest.mark.parametrize(
    ("start", "minutes", "taken"),
    [
        ("2026-12-01T09:00", 15, "Stand-up"),
        ("2026-12-01T08:50", 480, "Stand-up"),
        ("2026-12-01T10:29", 5, "Call with Grace"),
        ("2026-12-01T09:20", 60, "Call with Grace"),
        ("2026-12-01T13:55", 10, "Interview"),
    ],
)
def test_time_that_is_taken_is_refused(use: Use, bookings: Any, start: str, minutes: int, taken: str) -> None:
    use("book", CALL)
    with pytest.raises(Refused, match=f"is taken: {taken}"):
        use("book", {"title": "Other", "start": start, "minutes": minutes})
    assert len(bookings()) == 1


@pytest.mark.parametrize("start", ["2026-12-01T09:15", "2026-12-01T10:30", "2026-12-01T23:50"])
def test_times_that_only_touch_are_free(use: Use, bookings: Any, start: str) -> None:
    use("book", CALL)
    assert use("book", {"title": "Other", "start": start, "minutes": 15})["minutes"] == 15
    assert len(bookings()) == 2


def test_booking_over_midnight_is_seen_from_the_next_day(use: Use) -> None:
    use("book", {"title": "Night", "start": "2026-12-05T20:00", "minutes": 480})
    with pytest.raises(Refused, match="Night"):
        use("book", {"title": "Other", "start": "2026-12-06T03:30", "minutes": 15})


def test_call_with_a_key_is_made_once(use: Use, bookings: Any) -> None:
    """Its repetition is no conflict with itself."""
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: use("book", CALL, "run_1:toolu_1")["id"], range(16)))
    assert len(set(made)) == len(bookings()) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("book", {**CALL, "start": "2026-02-30T10:00"}, "is no date"),
        ("book", {**CALL, "start": "9999-12-31T23:59"}, "between the years"),
        ("book", {**CALL, "start": "tomorrow"}, "/start"),
        ("book", {**CALL, "start": "٢٠٢٦-12-01T10:00"}, "/start"),
        ("book", {**CALL, "minutes": 481}, "/minutes"),
        ("book", {**CALL, "minutes": "30"}, "/minutes"),
        ("book", {**CALL, "title": "x" * 201}, "/title"),
        ("list", {"from": "0001-01-01"}, "between the years"),
        ("list", {"days": 32}, "/days"),
    ],
)
def test_wrong_arguments_are_refused(use: Use, bookings: Any, name: str, arguments: Any, told: str) -> None:
    with pytest.raises(Refused, match=told):
        use(name, arguments)
    assert bookings() == []
