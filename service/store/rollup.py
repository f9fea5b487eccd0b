"""Daily roll-up of the ledger's calls; reports read it in place of the ledger once a day is closed.

A day is closed when it is over, has no open hold, and each of its calls has been added. Calls are added in batches by
the time they were made; the day's row stores the progress and is locked first, so that each batch is added exactly
once, despite crashes and concurrent workers. Holds and ledger are only read: no step waits for a roll-up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from service.store.adding import InsertAdding
from service.store.database import InsertOnce, Row, Transaction, clock_ms
from service.store.fitness import clock
from service.store.ledger import IS_CALL
from service.store.schema import SUMS, holds, ledger, usage_daily, usage_daily_by_user, usage_days
from service.store.usage import DAY_MS

LATE_MS = 3_600_000  # how far a worker's clock may lag the database's: until then a past day may get a hold
BATCH = 1_000  # calls of a transaction
EMPTY_DAYS = 400  # days without calls closed together with the day after them, so that a report has no gaps
MAX_DIFFERENCES = 10  # reported of a day and table
_TABLES = (usage_daily, usage_daily_by_user)
_IS_CLOSED = usage_days.c.checked_at.is_not(None)
_ONCE = InsertOnce(usage_days)
_CALLED_ON = ledger.c.called_at // DAY_MS


def next_day(tx: Transaction) -> int | None:
    """Find the oldest past day that has calls, no open hold, and is not closed."""
    end = _first_open_day(tx) * DAY_MS
    busy = {row["day"] for row in tx.rows(sa.select((holds.c.called_at // DAY_MS).label("day")).distinct())}
    done = busy | set(closed_days(tx))
    since = 0
    while (day := _day_of_first_call(tx, since, end)) is not None and day in done:
        while day in done:
            day += 1
        since = day * DAY_MS
    return day


def roll(tx: Transaction, day: int, size: int = BATCH) -> bool:
    """Add the next batch of a day's calls to its sums. True: the day is closed."""
    first, end = day * DAY_MS, (day + 1) * DAY_MS
    if tx.execute(_ONCE, {"day": day, "rolled_until": first, "calls": 0, "checked_at": None}):
        _delete_sums(tx, day)
    state = _locked(tx, day)
    if state["checked_at"] is not None or _days_of(tx, holds, first, end):
        return False
    since = state["rolled_until"]
    until = _end_of_batch(tx, since, end, size)
    for table in _TABLES:
        tx.execute(InsertAdding(table).from_select(_columns(table), _sums(table, since, until)))
    tx.execute(
        sa.update(usage_days)
        .where(usage_days.c.day == day)
        .values(
            rolled_until=until,
            calls=usage_days.c.calls + _count(since, until).scalar_subquery(),
            checked_at=clock_ms() if until == end else None,
        )
    )
    if until == end:
        _close_empty_days(tx, day)
    return until == end


def days_to_check(tx: Transaction) -> list[int]:
    """Days to recount: the day closed last, which may still get a late call, and the one checked longest ago."""
    closed = sa.select(usage_days.c.day).where(_IS_CLOSED).limit(1)
    orders = (usage_days.c.day.desc(), usage_days.c.checked_at)
    return [row["day"] for order in orders for row in tx.rows(closed.order_by(order))]


def recount(tx: Transaction, day: int) -> bool:
    """Compare a closed day's number of calls with the ledger's. False: they differ, its roll-up starts over.

    A worker whose clock lags by more than `LATE_MS` causes that: its call is booked on a closed day.
    """
    state = _locked(tx, day)
    if state["checked_at"] is None:
        return True
    first = day * DAY_MS
    row = tx.row(_count(first, first + DAY_MS))
    assert row is not None
    if row["calls"] == state["calls"]:
        tx.execute(sa.update(usage_days).where(usage_days.c.day == day).values(checked_at=clock_ms()))
        return True
    _delete_sums(tx, day)
    start = {"rolled_until": first, "calls": 0, "checked_at": None}
    tx.execute(sa.update(usage_days).where(usage_days.c.day == day).values(start))
    return False


def closed_days(tx: Transaction) -> list[int]:
    return [
        row["day"]
        for row in tx.rows(sa.select(usage_days.c.day).where(_IS_CLOSED).order_by(usage_days.c.day))
    ]


def differences(tx: Transaction, day: int) -> Iterator[tuple[str, Row]]:
    """Compare the sums of a closed day with the ledger's; yield the table's name and the difference of each row.

    Must be the first read of its transaction.
    """
    tx.use_one_snapshot()
    if tx.row(sa.select(usage_days.c.day).where(usage_days.c.day == day, _IS_CLOSED)) is None:
        return
    for table in _TABLES:
        names = [column.name for column in table.primary_key]
        rolled = sa.select(*(table.c[name] for name in names), *(table.c[name] for name in SUMS))
        booked = _sums(table, day * DAY_MS, (day + 1) * DAY_MS).subquery()
        negated = sa.select(
            *(booked.c[name] for name in names), *((-booked.c[name]).label(name) for name in SUMS)
        )
        both = sa.union_all(rolled.where(table.c.day == day), negated).subquery()
        groups = [both.c[name] for name in names]
        sums = [sa.cast(sa.func.sum(both.c[name]), sa.BigInteger) for name in SUMS]
        query = sa.select(*groups, *(each.label(name) for each, name in zip(sums, SUMS, strict=True)))
        query = query.group_by(*groups).having(sa.or_(*(each != 0 for each in sums)))
        for row in tx.rows(query.order_by(*groups).limit(MAX_DIFFERENCES)):
            yield table.name, row


def _first_open_day(tx: Transaction) -> int:
    """First day that is not over for `LATE_MS` yet."""
    return (clock(tx) - LATE_MS) // DAY_MS


def _day_of_first_call(tx: Transaction, since: int, end: int) -> int | None:
    called_at = sa.func.min(ledger.c.called_at).label("called_at")
    row = tx.row(sa.select(called_at).where(IS_CALL, *_called(since, end)))
    assert row is not None
    return None if row["called_at"] is None else int(row["called_at"] // DAY_MS)


def _locked(tx: Transaction, day: int) -> Row:
    row = tx.row(sa.select(usage_days).where(usage_days.c.day == day).with_for_update())
    assert row is not None
    return row


def _delete_sums(tx: Transaction, day: int) -> None:
    """Delete the sums of a day before its roll-up starts: an earlier one may have left some."""
    for table in _TABLES:
        tx.execute(sa.delete(table).where(table.c.day == day))


def _days_of(tx: Transaction, table: sa.Table, since: int, until: int) -> set[int]:
    """Days with rows in `table`: holds, or calls of the ledger."""
    called = table.c.called_at
    query = sa.select((called // DAY_MS).label("day")).where(called >= since, called < until).distinct()
    return {row["day"] for row in tx.rows(query.where(IS_CALL) if table is ledger else query)}


def _end_of_batch(tx: Transaction, since: int, end: int, size: int) -> int:
    """End (ms) of the next batch of `size` calls; calls of one millisecond stay together."""
    called = ledger.c.called_at
    query = sa.select(called).where(IS_CALL, *_called(since, end)).order_by(called).offset(size).limit(1)
    row = tx.row(query)
    return end if row is None else max(int(row["called_at"]), since + 1)


def _close_empty_days(tx: Transaction, day: int) -> None:
    """Close the days without calls and holds between this day and the closed one before it."""
    row = tx.row(
        sa.select(sa.func.max(usage_days.c.day).label("day")).where(_IS_CLOSED, usage_days.c.day < day)
    )
    assert row is not None
    if row["day"] is None:
        return
    first = max(row["day"] + 1, day - EMPTY_DAYS)
    span = (first * DAY_MS, day * DAY_MS)
    used = _days_of(tx, holds, *span)  # first: a hold settled meanwhile is then in the ledger
    used |= _days_of(tx, ledger, *span)
    for empty in range(first, day):
        if empty not in used:
            values = {"day": empty, "rolled_until": (empty + 1) * DAY_MS, "calls": 0}
            tx.execute(InsertOnce(usage_days).values(**values, checked_at=clock_ms()))


def _sums(table: sa.Table, since: int, until: int) -> sa.Select[Any]:
    """Query sums of the ledger's calls, grouped by the key of `table`, with its columns."""
    keys: list[sa.ColumnElement[Any]] = [
        _CALLED_ON if column.name == "day" else sa.func.coalesce(ledger.c[column.name], "")
        for column in table.primary_key
    ]
    sums = (sa.cast(sa.func.coalesce(sa.func.sum(ledger.c[name]), 0), sa.BigInteger) for name in SUMS[1:])
    columns = (*keys, sa.func.count(), *sums)
    named = (each.label(name) for each, name in zip(columns, _columns(table), strict=True))
    return sa.select(*named).where(IS_CALL, *_called(since, until)).group_by(*keys)


def _columns(table: sa.Table) -> Sequence[str]:
    return [*(column.name for column in table.primary_key), *SUMS]


def _count(since: int, until: int) -> sa.Select[Any]:
    return sa.select(sa.func.count().label("calls")).where(IS_CALL, *_called(since, until))


def _called(since: int, until: int) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return ledger.c.called_at >= since, ledger.c.called_at < until
