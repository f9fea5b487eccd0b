"""Reconciliation with the provider's usage export (CSV or JSON): drift per day and model."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple

import orjson

from service.store.database import Database
from service.store.usage import UsageQuery, lines
from service.types import NANO
from service.usage.prices import DATED, OFFLINE
from service.usage.reports import day_of

KINDS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
# Our names first, then the columns of the provider's console export and of its usage API.
NAMES: dict[str, tuple[str, ...]] = {
    "date": ("date", "day", "usage_date_utc", "starting_at"),
    "model": ("model", "model_version"),
    "input_tokens": ("input_tokens", "usage_input_tokens_no_cache", "uncached_input_tokens"),
    "output_tokens": ("output_tokens", "usage_output_tokens"),
    "cache_read_tokens": ("cache_read_input_tokens", "cache_read_tokens", "usage_input_tokens_cache_read"),
    "cache_creation_tokens": ("cache_creation_input_tokens", "cache_creation_tokens"),
    "cost": ("cost_usd", "cost"),
}
MAX_COST = 10**9  # dollars of one record
WRITES = (
    "usage_input_tokens_cache_write_5m",
    "usage_input_tokens_cache_write_1h",
    "ephemeral_5m_input_tokens",
    "ephemeral_1h_input_tokens",
)


class Drift(NamedTuple):
    """Difference on one day for one model: each kind of tokens, and the cost in nano-dollars (absent: not exported)."""

    day: str
    model: str
    ours: dict[str, int]
    theirs: dict[str, int]

    @property
    def differs(self) -> bool:
        return any(self.ours.get(name, 0) != theirs for name, theirs in self.theirs.items())


def drifts(db: Database, export: str) -> list[Drift]:
    """Compare every day and model of the export with the ledger. Raises `ValueError` naming the record."""
    theirs = _sums(_records(export))
    days = {day for day, _ in theirs}
    ours = _ours(db) if days else {}
    keys = sorted(theirs.keys() | {key for key in ours if key[0] in days})
    return [Drift(*key, ours.get(key, {}), theirs.get(key, dict.fromkeys(KINDS, 0))) for key in keys]


def _ours(db: Database) -> dict[tuple[str, str], dict[str, int]]:
    rows = db.query(lambda tx: lines(tx, UsageQuery(0, 2**62, ("day", "model"))))
    found = ({**row, "date": day_of(row["day"]), "cost": row["amount_nano"]} for row in rows)
    return _sums(
        (line["date"], line["model"], {name: line[name] for name in (*KINDS, "cost")}) for line in found
    )


def _sums(lines: Iterable[tuple[str, str, Mapping[str, int]]]) -> dict[tuple[str, str], dict[str, int]]:
    sums: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for day, model, figures in lines:
        group = sums[day, DATED.sub("", model.removeprefix(OFFLINE))]
        for name, value in figures.items():
            group[name] = group.get(name, 0) + value
    return dict(sums)


def _records(export: str) -> Iterator[tuple[str, str, dict[str, int]]]:
    for number, raw in enumerate(_raw(export), 1):
        try:
            yield _record(raw)
        except (KeyError, ValueError, TypeError, InvalidOperation) as error:
            raise ValueError(f"record {number} of the export does not fit: {error!r}") from error


def _raw(export: str) -> Iterator[dict[str, Any]]:
    """Yield the export's records, unchecked. Raises `ValueError` for a document that has none."""
    if export.lstrip()[:1] not in ("{", "["):
        try:
            yield from csv.DictReader(io.StringIO(export))
        except csv.Error as error:
            raise ValueError(f"the export is no CSV: {error}") from error
        return
    document = orjson.loads(export)
    for item in _objects(document.get("data") if isinstance(document, dict) else document):
        for result in _objects(item.get("results", [item])):  # the usage API's buckets
            [writes] = _objects([result.get("cache_creation") or {}])
            yield {**item, **result, **writes}


def _objects(value: Any) -> list[dict[str, Any]]:
    """Check for a list of objects. Raises `ValueError`."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("the export is neither a list of records nor an object with one in `data`")
    return value


def _record(raw: Mapping[str, Any]) -> tuple[str, str, dict[str, int]]:
    day = _date(str(_field(raw, "date")))
    figures = {kind: int(_ascii(_field(raw, kind) or 0)) for kind in KINDS}
    figures["cache_creation_tokens"] += sum(int(_ascii(raw.get(name) or 0)) for name in WRITES)
    if (cost := _field(raw, "cost")) not in (None, ""):
        figures["cost"] = int((_dollars(_ascii(cost)) * NANO).to_integral_value())
    return day, str(_field(raw, "model")), figures


def _dollars(text: str) -> Decimal:
    """Parse an amount, also a negative one or one with an exponent. Raises `ValueError` and `InvalidOperation`."""
    amount = Decimal(text)
    if not abs(amount) < MAX_COST:
        raise ValueError("a cost must be below a billion dollars")
    return amount


def _ascii(value: object) -> str:
    """Reject digits of other scripts, which `int` and `Decimal` accept. Raises `ValueError`."""
    text = str(value)
    if not text.isascii():
        raise ValueError("a figure must be written in ASCII digits")
    return text


def _field(raw: Mapping[str, Any], name: str) -> Any:
    found = next((raw[column] for column in NAMES[name] if column in raw), None)
    if found is None and name in ("date", "model"):
        raise KeyError(name)
    return found


def _date(text: str) -> str:
    return (date.fromisoformat(text) if len(text) == 10 else datetime.fromisoformat(text).date()).isoformat()
