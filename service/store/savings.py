"""Sums of answers that no model was asked for: added by each process, read by usage reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from service.store.adding import InsertAdding
from service.store.database import Transaction
from service.store.schema import SAVED, savings_daily, savings_daily_by_user, savings_hourly
from service.types import now_ms

HOURS_KEPT_MS = 400 * 86_400_000  # of the sums by hour: as long as the longest report
KEY = tuple(column.name for column in savings_hourly.primary_key)
_TABLES = (savings_hourly, savings_daily, savings_daily_by_user)

Key = tuple[int | str, ...]  # values of `KEY`
Sums = Sequence[int]  # of `SAVED`


def add(tx: Transaction, found: Mapping[Key, Sums]) -> None:
    """Add sums by hour, and their sums by day. Rows are written in the order of their keys, so that writers wait in
    line and never for each other."""
    for table in _TABLES:
        names = [column.name for column in table.primary_key]
        rows: dict[Key, list[int]] = {}
        for key, sums in found.items():
            known = dict(zip(KEY, key, strict=True))
            known["day"] = int(known["hour"]) // 24
            row = rows.setdefault(tuple(known[name] for name in names), [0] * len(SAVED))
            row[:] = map(sum, zip(row, sums, strict=True))
        columns = (*names, *SAVED)
        values = [dict(zip(columns, (*key, *rows[key]), strict=True)) for key in sorted(rows)]
        tx.execute(InsertAdding(table), values)


def expire(tx: Transaction, limit: int) -> int:
    """Delete at most `limit` old sums by hour; return how many."""
    before = (now_ms() - HOURS_KEPT_MS) // 3_600_000
    key = [savings_hourly.c[name] for name in KEY]
    old = sa.select(*key).where(savings_hourly.c.hour < before).order_by(*key).limit(limit)
    old = old.with_for_update(skip_locked=True)
    return tx.execute(sa.delete(savings_hourly).where(sa.tuple_(*key).in_(old)))
