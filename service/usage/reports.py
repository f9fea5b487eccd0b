"""Usage reports in the API's terms: pages with a cursor, and CSV sheets that are read while they are sent."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from service.store import usage
from service.store.database import Database, Row
from service.store.schema import SAVED
from service.store.usage import GROUPS as GROUPS
from service.store.usage import HOUR_MS, UsageQuery, Values, order_of
from service.types import rfc3339, usd

# Fields of savings, by the layer that saved.
SAVINGS = {
    "hits": "hit_savings_usd",
    "near hits": "near_savings_usd",
    "coalesced requests": "coalesced_savings_usd",
    "prompt cache": "prompt_cache_savings_usd",
    "batches": "batch_savings_usd",
}
FIGURES = (
    "calls",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cost_usd",
    "hits",
    "near_hits",
    "coalesced",
    *SAVINGS.values(),
)
# As OWASP's page on CSV injection lists them, with their full-width forms.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
PAGE = 1_000  # lines of a sheet per database query
LONG_PAGE = 10_000  # where each query sums the whole report: some 6 MB
CHUNK = 100  # lines of a sheet per chunk sent
PAUSE = 0.001  # seconds of sleep after each chunk, for the other threads of the process


class Cursor(NamedTuple):
    """Position in a report: its last line, and the end of the report, as a `to` of now would move on between pages."""

    until: int
    by: Sequence[str]
    after: Values


class Page(NamedTuple):
    lines: list[dict[str, Any]]
    total: dict[str, Any]
    next: Cursor | None


class SheetEnded(Exception):
    """Raised when a sheet exceeds its time limit: it is incomplete."""


def page(db: Database, query: UsageQuery, *, limit: int, after: Values | None = None) -> Page:
    """Read at most `limit` lines after the values of a line, and the total of the whole report.

    Calls that are not settled yet are in neither.
    """

    def read(tx: Any) -> tuple[list[Row], Row]:
        found = usage.lines(tx, query, limit=limit + 1, after=after)
        return found, usage.total(tx, query) if query.by else found[0]

    found, total = db.query(read)
    more = len(found) > limit
    following = Cursor(query.until, query.by, _values(found[limit - 1], query.by)) if more else None
    return Page([_line(row, query.by) for row in found[:limit]], _line(total, ()), following)


def sheet(db: Database, query: UsageQuery, *, seconds: float, after: Values | None = None) -> Iterator[str]:
    """Yield the report as CSV, header line first, reading on as it is consumed.

    Each page is read in a transaction of its own, so a slow reader holds neither a connection nor a snapshot. Raises
    `SheetEnded` after `seconds`.
    """
    end, size = time.monotonic() + seconds, PAGE if usage.is_sliced(query) else LONG_PAGE
    found = _rows(db, query, after, size)
    yield _csv([(*query.by, *FIGURES)])
    sent = 0
    while True:
        for start in range(0, len(found), CHUNK):
            yield _csv(_cells(row, query.by) for row in found[start : start + CHUNK])
            time.sleep(PAUSE)
        if len(found) < size:
            return
        sent += len(found)
        if time.monotonic() > end:
            raise SheetEnded(f"{sent} lines in {seconds:.0f} seconds")
        found = _rows(db, query, _values(found[-1], query.by), size)


def as_csv(lines: Sequence[dict[str, Any]], by: Sequence[str]) -> str:
    """Format one page as CSV, header line first."""
    return _csv([(*by, *FIGURES), *(line.values() for line in lines)])


def day_of(number: int) -> str:
    """Format a day number, counted from 1970-01-01, as an ISO date."""
    return datetime.fromtimestamp(number * 86_400, UTC).date().isoformat()


def _rows(db: Database, query: UsageQuery, after: Values | None, size: int) -> list[Row]:
    return db.query(lambda tx: usage.lines(tx, query, limit=size, after=after))


def _values(row: Row, by: Sequence[str]) -> Values:
    return tuple(row[name] for name in order_of(by))


def _line(row: Row, by: Sequence[str]) -> dict[str, Any]:
    cells = _cells(row, by)
    return dict(zip((*by, *FIGURES), cells, strict=True))


def _cells(row: Row, by: Sequence[str]) -> list[Any]:
    return [
        *(_shown(name, row[name]) for name in by),
        row["calls"],
        row["input_tokens"],
        row["output_tokens"],
        row["cache_read_tokens"],
        row["cache_creation_tokens"],
        usd(row["amount_nano"]),
        *(row[name] for name in SAVED[:3]),
        *(usd(row[name]) for name in (*SAVED[3:], "saved_nano", "batch_saved_nano")),
    ]


def _shown(name: str, value: Any) -> str | None:
    if name == "day":
        return day_of(value)
    return rfc3339(value * HOUR_MS) if name == "hour" else value or None


def _inert(cell: Any) -> Any:
    """Put `'` before a text that a spreadsheet would compute; a number stays one."""
    if isinstance(cell, str) and cell.startswith(FORMULA) and _NUMBER.fullmatch(cell) is None:
        return f"'{cell}"
    return cell


def _csv(rows: Any) -> str:
    out = io.StringIO()
    csv.writer(out).writerows(map(_inert, cells) for cells in rows)
    return out.getvalue()
