"""Calendar: which tool to call next for a request about events, and the results as sentences.

A request to book needs a day (a date, today, tomorrow or a weekday) and a time. The calendar is listed first: it tells
today's date.
"""

from __future__ import annotations

import re
from datetime import date, timedelta

import orjson

from offline_model.conversation import Conversation, Result
from offline_model.shapes import Json
from offline_model.text import quote

LIST, BOOK = "calendar__list", "calendar__book"
_ABOUT = re.compile(
    r"\b(?:calendar|appointments?|meetings?|events?|book|am i free|my week|my day)\b", re.IGNORECASE
)
_BOOK = re.compile(r"\bbook\s+(?:me\s+)?(?:an?\s+|the\s+)?(.+)", re.IGNORECASE)
_WEEKDAYS = "monday tuesday wednesday thursday friday saturday sunday".split()  # noqa: SIM905
_DAY = re.compile(
    rf"\b(?:on\s+|next\s+)*([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}|today|tomorrow|{'|'.join(_WEEKDAYS)})\b",
    re.IGNORECASE,
)
_TIME = re.compile(r"\b(?:at\s+)?([01]?[0-9]|2[0-3]):([0-5][0-9])\b(?:\s+UTC\b)?", re.IGNORECASE)
_LENGTH = re.compile(r"\b(?:for\s+)?(half an|an|[0-9]{1,3})[\s-]*(minutes?|hours?)\b", re.IGNORECASE)
_USUAL_MINUTES = 30
UNCLEAR = "To book, name a day and a time, such as tomorrow at 10:00."


def next_call(parsed: Conversation) -> tuple[str, Json] | None:
    """Return the tool to call next and its input; None to answer, or for a request about something else."""
    names = {tool["name"] for tool in parsed.tools}
    if LIST not in names or not _ABOUT.search(parsed.question) or parsed.results_of(BOOK):
        return None
    if any(result.is_error for result in parsed.results):
        return None
    day = _DAY.search(parsed.question)
    if not parsed.results_of(LIST):
        return LIST, ({"from": day[1], "days": 1} if day and day[1][0] in "0123456789" else {})
    if BOOK in names and day and (wanted := _booking(parsed.question, day[1].lower(), _today(parsed))):
        return BOOK, wanted
    return None


def told(parsed: Conversation) -> str | None:
    """Tell the last result of a calendar tool; None without one, or for one that failed."""
    for name, tell in ((BOOK, _booked), (LIST, _listed)):
        if results := parsed.results_of(name):
            if results[-1].is_error:
                return f"Nothing was booked: {quote(results[-1].text, 300)}." if name == BOOK else None
            return UNCLEAR if name == LIST and _is_unclear(parsed.question) else tell(results[-1])
    return None


def _is_unclear(question: str) -> bool:
    return bool(_BOOK.search(question)) and not (_DAY.search(question) and _TIME.search(question))


def _booking(question: str, day: str, today: date | None) -> Json | None:
    """Read the booking that a request asks for; None where it asks for none, or lacks a day or a time."""
    asked, at = _BOOK.search(question), _TIME.search(question)
    if asked is None or at is None or today is None:
        return None
    title = asked[1]
    for part in (_LENGTH, _TIME, _DAY):
        title = part.sub("", title)
    title = " ".join(title.split()).strip(" .,!?")
    start = f"{_date(day, today)}T{int(at[1]):02}:{at[2]}"
    return {
        "title": title[:1].upper() + title[1:] or "Meeting",
        "start": start,
        "minutes": _minutes(question),
    }


def _date(day: str, today: date) -> str:
    if day[0] in "0123456789":
        return day
    if day in _WEEKDAYS:  # the next one, not today
        return str(today + timedelta(days=(_WEEKDAYS.index(day) - today.weekday() - 1) % 7 + 1))
    return str(today + timedelta(days=day == "tomorrow"))


def _minutes(question: str) -> int:
    found = _LENGTH.search(question)
    if not found:
        return _USUAL_MINUTES
    number = {"half an": 30, "an": 60}.get(found[1].lower())
    return number or int(found[1]) * (60 if found[2].lower().startswith("hour") else 1)


def _today(parsed: Conversation) -> date | None:
    try:
        return date.fromisoformat(str(_read(parsed.results_of(LIST)[-1]).get("today")))
    except ValueError:
        return None


def _read(result: Result) -> Json:
    try:
        value = orjson.loads(result.text)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def _booked(result: Result) -> str:
    event = _read(result)
    day, _, at = str(event.get("start")).partition("T")
    return f"Booked: {event.get('title')}, on {event.get('day')} {day} at {at} UTC for {event.get('minutes')} minutes."


def _listed(result: Result) -> str | None:
    found = _read(result)
    events = found.get("events")
    if not isinstance(events, list):
        return None
    shown = "; ".join(
        f"{event['day']} {event['start'].replace('T', ' ')} {event['title']}" for event in events
    )
    return f"From {found.get('from')} to {found.get('to')}: {shown or 'nothing'}."
