"""Calendar server: events of each week, and bookings between them. All times are UTC."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from mcp_servers.server import Arguments, Tool
from mcp_servers.store import Refused, Store

MOST_BOOKINGS = 10_000
MOST_DAYS = 31
MOST_MINUTES = 480
# Day of the week (0: Monday), beginning, minutes, title. By the week, so that a calendar is never empty.
WEEKLY = (
    (0, time(9, 0), 15, "Stand-up"),
    (0, time(13, 0), 60, "Planning"),
    (1, time(9, 0), 15, "Stand-up"),
    (1, time(14, 0), 60, "Interview"),
    (2, time(9, 0), 15, "Stand-up"),
    (2, time(15, 0), 45, "Design review"),
    (3, time(9, 0), 15, "Stand-up"),
    (3, time(11, 0), 30, "One-to-one with Ada"),
    (4, time(9, 0), 15, "Stand-up"),
    (4, time(16, 0), 30, "Demo"),
)
_DATE = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
_TABLE = (
    "CREATE TABLE IF NOT EXISTS bookings "
    "(id TEXT PRIMARY KEY, start TEXT NOT NULL, minutes INTEGER NOT NULL, title TEXT NOT NULL)"
)


class Event(NamedTuple):
    start: datetime
    minutes: int
    title: str

    @property
    def end(self) -> datetime:
        return self.start + timedelta(minutes=self.minutes)

    def shown(self) -> dict[str, str]:
        return {
            "day": f"{self.start:%A}",
            "start": f"{self.start:%Y-%m-%dT%H:%M}",
            "end": f"{self.end:%Y-%m-%dT%H:%M}",
            "title": self.title,
        }


def tools(folder: Path) -> list[Tool]:
    """Return the tools over `calendar.db` in a folder."""
    calendar = _Calendar(Store(folder / "calendar.db", (_TABLE,)))
    return [
        Tool(
            "list",
            "List the events of some days, in UTC; the answer also has today's date.",
            {
                "from": {
                    "type": "string",
                    "pattern": _DATE,
                    "description": "First day, such as 2026-12-01; today if left out",
                },
                "days": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MOST_DAYS,
                    "description": "Number of days, 7 if left out",
                },
            },
            (),
            calendar.list,
        ),
        Tool(
            "book",
            "Book a time that is free. A person approves it first.",
            {
                "title": {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[^\\r\\n]*$"},
                "start": {
                    "type": "string",
                    "pattern": _DATE[:-1] + "T[0-9]{2}:[0-9]{2}$",
                    "description": "Beginning in UTC, such as 2026-12-01T10:00",
                },
                "minutes": {"type": "integer", "minimum": 5, "maximum": MOST_MINUTES},
            },
            ("title", "start", "minutes"),
            calendar.book,
        ),
    ]


class _Calendar:
    def __init__(self, store: Store) -> None:
        self._store = store

    def list(self, arguments: Arguments, key: str) -> dict[str, Any]:
        now = datetime.now(UTC)
        first = _read(arguments["from"]).date() if "from" in arguments else now.date()
        begin = datetime.combine(first, time())
        end = begin + timedelta(days=arguments.get("days", 7))
        rows = self._store.rows(
            "SELECT start, minutes, title FROM bookings WHERE start >= ? AND start < ?",
            (begin.isoformat(), end.isoformat()),
        )
        events = sorted([*_weekly(first, (end - begin).days), *map(_event, rows)])
        return {
            "today": f"{now:%Y-%m-%d}",
            "weekday": f"{now:%A}",
            "from": f"{begin:%Y-%m-%d}",
            "to": f"{end - timedelta(days=1):%Y-%m-%d}",
            "events": [event.shown() for event in events],
        }

    def book(self, arguments: Arguments, key: str) -> dict[str, Any]:
        wanted = Event(_read(arguments["start"]), arguments["minutes"], arguments["title"].strip())

        def change(db: sqlite3.Connection) -> dict[str, Any]:
            for event in _around(db, wanted):
                if event.start < wanted.end and wanted.start < event.end:
                    shown = event.shown()
                    raise Refused(f"{shown['start']} to {shown['end']} is taken: {event.title}.")
            if db.execute("SELECT COUNT(*) FROM bookings").fetchone()[0] >= MOST_BOOKINGS:
                raise Refused(f"The calendar is full: it holds {MOST_BOOKINGS:,} bookings.")
            booking = f"booking_{uuid4().hex}"
            values = (booking, wanted.start.isoformat(), wanted.minutes, wanted.title)
            db.execute("INSERT INTO bookings VALUES (?, ?, ?, ?)", values)
            return {"id": booking, **wanted.shown(), "minutes": wanted.minutes}

        return self._store.once(key, "book", arguments, change)


def _around(db: sqlite3.Connection, wanted: Event) -> Iterator[Event]:
    """Yield the events that may overlap: none is longer than a day."""
    first = wanted.start.date() - timedelta(days=1)
    yield from _weekly(first, 3)
    begin, end = datetime.combine(first, time()), wanted.end
    statement = "SELECT start, minutes, title FROM bookings WHERE start >= ? AND start < ?"
    yield from map(_event, db.execute(statement, (begin.isoformat(), end.isoformat())))


def _weekly(first: date, days: int) -> Iterator[Event]:
    for number in range(days):
        day = first + timedelta(days=number)
        for weekday, begin, minutes, title in WEEKLY:
            if day.weekday() == weekday:
                yield Event(datetime.combine(day, begin), minutes, title)


def _event(row: sqlite3.Row) -> Event:
    return Event(datetime.fromisoformat(row["start"]), row["minutes"], row["title"])


def _read(text: str) -> datetime:
    """Read a time between the years 2000 and 2999. Raises `Refused`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Refused(f"{text} is no date.") from None
    if not 2000 <= found.year < 3000:
        raise Refused(f"{text} is not between the years 2000 and 2999.")
    return found
