"""Slots of a cron expression in a time zone, as ms since 1970 UTC; pure arithmetic.

Summer time, as cron of Debian has it. A schedule of *times of day* (neither minute nor hour begins with `*`): one that
the clock jumps over comes at the first moment after the gap, one that comes twice counts the first time, and each day
has it once. Any other is one of *intervals*, and follows the clock: each moment whose local time fits is a slot, so a
repeated hour has its slots twice, and a missing one has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from service.errors import fault

MAX_CRON = 128  # characters
_FIELD = re.compile(r"[0-9A-Za-z*,/#-]+")
_MINUTE, _CHUNK = timedelta(minutes=1), timedelta(hours=12)
_ANY_TIME = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
_MINUTE_MS = 60_000


class Cron(NamedTuple):
    """Five fields, minute to day of the week, and a name of the IANA time zones."""

    text: str
    zone: str

    @classmethod
    def checked(cls, text: str, zone: str) -> Cron:
        """Validate both. Raises `Invalid`, also for a date that never comes."""
        if zone not in zones():
            raise fault("/timezone", "must be the name of a time zone, such as Europe/Berlin")
        fields = text.split()
        if len(fields) != 5 or len(text) > MAX_CRON or not all(map(_FIELD.fullmatch, fields)):
            raise fault("/cron", "must have five fields: minute, hour, day, month, day of the week")
        try:
            next(CronSim(text, _ANY_TIME))
        except CronSimError as error:
            raise fault("/cron", f"is no cron expression: {error}") from None
        except StopIteration:
            raise fault("/cron", "must name a date that comes") from None
        return cls(text, zone)

    def following(self, after: int) -> int:
        """Return the first slot after a time."""
        moment = datetime.fromtimestamp(after / 1000, UTC)
        return int(_rule_of(self)(moment).timestamp()) * 1000

    def recent(self, first: int, until: int, most: int) -> list[int]:
        """List the last `most` slots from `first`, itself one, to a time, in order.

        Looks back from the end, twice as far each time: a year of minutes costs no more than an hour.
        """
        back = most * _MINUTE_MS
        while True:
            begin = max(first, until - back)
            slots = list(self._between(begin, until))
            if len(slots) >= most or begin == first:
                return slots[-most:]
            back *= 2

    def _between(self, begin: int, until: int) -> Iterator[int]:
        slot = self.following(begin - 1)
        while slot <= until:
            yield slot
            slot = self.following(slot)


@cache
def zones() -> frozenset[str]:
    """Return the names of all time zones."""
    return frozenset(available_timezones())


@lru_cache(maxsize=256)
def _rule_of(cron: Cron) -> Callable[[datetime], datetime]:
    minute, hour, *_ = cron.text.split()
    rule = _intervals if minute.startswith("*") or hour.startswith("*") else _times_of_day
    zone = ZoneInfo(cron.zone)
    return lambda after: rule(cron.text, zone, after)


def _times_of_day(text: str, zone: ZoneInfo, after: datetime) -> datetime:
    for wall in CronSim(text, _wall(zone, after)):
        moment = wall.replace(tzinfo=zone).astimezone(UTC)  # of two the first
        if _wall(zone, moment) != wall:
            moment = _change(zone, moment - _CHUNK, moment)
        if moment > after:
            return moment
    raise AssertionError("a valid expression has always another date")


def _intervals(text: str, zone: ZoneInfo, after: datetime) -> datetime:
    """Step through spans of one offset from UTC each: within one, local time runs as UTC does."""
    begin, wall = after, next(CronSim(text, _wall(zone, after)))
    while True:
        end = begin + _CHUNK
        slot = (wall - _offset(zone, begin)).replace(tzinfo=UTC)
        if _offset(zone, begin) == _offset(zone, end):
            if slot <= end:
                return slot
            begin = end
            continue
        change = _change(zone, begin, end)
        if slot < change:
            return slot
        begin = change
        wall = next(CronSim(text, _wall(zone, change) - _MINUTE))  # the change may be a slot itself


def _change(zone: ZoneInfo, begin: datetime, end: datetime) -> datetime:
    """Find the first moment, to the minute, with another offset than at `begin`; there is one by `end`."""
    offset, minutes = _offset(zone, begin), (end - begin) // _MINUTE + 1
    low, high = 0, minutes
    while high - low > 1:
        middle = (low + high) // 2
        same = _offset(zone, begin + middle * _MINUTE) == offset
        low, high = (middle, high) if same else (low, middle)
    return (begin + high * _MINUTE).replace(second=0, microsecond=0)


def _wall(zone: ZoneInfo, moment: datetime) -> datetime:
    """Return the local time at a moment, without a zone."""
    return (moment + _offset(zone, moment)).replace(tzinfo=None)


def _offset(zone: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.astimezone(zone).utcoffset()
    assert offset is not None
    return offset
