"""Usage reports: sums over settled calls, by hour, day, agent, model, user and key.

Every call is counted once: calls of a closed day by the roll-up (`service.store.rollup`), all others by the ledger.
One snapshot sees which days are closed and both sources, so a day that is closed meanwhile is not counted twice.

A page is read in slices, of days or of users, until it is full: so it costs what its own lines cost, whatever else
the report has. Within a slice the lines begin after the cursor's values (keyset), never after a number of lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.database import Row, Transaction
from service.store.ledger import IS_CALL, one_snapshot
from service.store.schema import ledger, usage_daily, usage_daily_by_user, usage_days, users
from service.store.transaction import filter_only
from service.store.visibility import UNRESTRICTED, Visibility

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
TIMES = ("day", "hour")  # counted from 1970
GROUPS = ("hour", "day", "agent", "model", "user", "key")
COLUMN_OF = {"agent": "agent", "model": "model", "user": "user_id", "key": "key_id"}
SUMS = (
    "calls",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "amount_nano",
    "saved_nano",
)
MOST_SPANS = 100  # of closed days in one query; where there are more, it reads the ledger alone
GROWTH = 4  # times the days or users of a slice are those of the next one

Values = tuple[int | str, ...]  # of a line's groups, in the order of `order_of`


class UsageQuery(NamedTuple):
    """A report: the visible calls of `since` <= t < `until` (ms), grouped by some of `GROUPS`."""

    since: int
    until: int
    by: tuple[str, ...] = ()
    visible: Visibility = UNRESTRICTED


class _Slice(NamedTuple):
    """Part of a report with whole groups: calls of `since` <= t < `until`, of users from `first` to below `end`."""

    since: int
    until: int
    first: str | None = None
    end: str | None = None

    def of_users(self, table: sa.Table) -> list[sa.ColumnElement[bool]]:
        """Compile the bounds of users to SQL; a ledger row without a user belongs to the first slice."""
        found: list[sa.ColumnElement[bool]] = []
        if self.first:
            found.append(table.c.user_id >= self.first)
        if self.end is not None:
            below = table.c.user_id < self.end
            empty = table.c.user_id.nullable and not self.first  # with OR no index by user would be used
            found.append(sa.or_(below, table.c.user_id.is_(None)) if empty else below)
        return found


def order_of(by: Sequence[str]) -> tuple[str, ...]:
    """The order of the lines: by time, where that is a group, else by user; then as asked."""
    times = [name for name in TIMES if name in by]
    first = times or [name for name in by if name == "user"]
    return (*first, *(name for name in by if name not in first))


def lines(
    tx: Transaction, asked: UsageQuery, *, limit: int | None = None, after: Values | None = None
) -> list[Row]:
    """Read the groups' sums in their order: `limit` at most, of those after the values of a line.

    The transaction must not have read before: see `one_snapshot`. Groups that have no value are empty strings.
    """
    one_snapshot(tx)
    closed = closed_spans(tx, asked)
    if limit is None or not _sliced(asked):
        return tx.rows(_sums(asked, _Slice(asked.since, asked.until), closed, after).limit(limit))
    found: list[Row] = []
    slices = _days(asked, after) if order_of(asked.by)[0] in TIMES else _users(tx, asked, after, limit)
    for part in slices:
        found += tx.rows(_sums(asked, part, closed, after).limit(limit - len(found)))
        if len(found) == limit:
            break
    return found


def total(tx: Transaction, asked: UsageQuery) -> Row:
    """Sum the whole report, in the snapshot that `lines` began."""
    asked = asked._replace(by=())
    [row] = tx.rows(_sums(asked, _Slice(asked.since, asked.until), closed_spans(tx, asked), None))
    return row


def _sliced(asked: UsageQuery) -> bool:
    """Whether there may be many groups, and their order lets them be read in slices."""
    fine = bool({"hour", "user", "key"} & {*asked.by})
    return fine and asked.visible.user_id is None and bool({"hour", "day", "user"} & {*asked.by})


def _days(asked: UsageQuery, after: Values | None) -> Iterator[_Slice]:
    """Slice by days, from the cursor's on; each has `GROWTH` times the days of the one before."""
    since, length = asked.since, DAY_MS
    if after is not None:
        length_of_first = DAY_MS if order_of(asked.by)[0] == "day" else HOUR_MS
        since = max(since, int(after[0]) * length_of_first)
    while since < asked.until:
        until = min(since // DAY_MS * DAY_MS + length, asked.until)
        yield _Slice(since, until)
        since, length = until, length * GROWTH


def _users(tx: Transaction, asked: UsageQuery, after: Values | None, limit: int) -> Iterator[_Slice]:
    """Slice by users, from the cursor's on: the table of users says where to cut, whether they have called or not."""
    first = None if after is None else str(after[0])
    for size in (limit // GROWTH * GROWTH**turn + 1 for turn in count()):
        query = sa.select(users.c.id).order_by(users.c.id).offset(size).limit(1)
        row = tx.row(query.where(users.c.id > first) if first else query)
        yield _Slice(asked.since, asked.until, first, row["id"] if row else None)
        if row is None:
            return
        first = row["id"]


def closed_spans(tx: Transaction, asked: UsageQuery) -> list[tuple[int, int]]:
    """Spans (ms) of closed days that the report has as a whole; neighbours are one span. None where hours are asked."""
    if "hour" in asked.by:
        return []
    first, end = -(-asked.since // DAY_MS), asked.until // DAY_MS
    day = usage_days.c.day
    query = sa.select(day).where(day >= first, day < end, usage_days.c.checked_at.is_not(None))
    spans: list[tuple[int, int]] = []
    for row in tx.rows(query.order_by(day)):
        since = row["day"] * DAY_MS
        if spans and spans[-1][1] == since:
            since = spans.pop()[0]
        spans.append((since, (row["day"] + 1) * DAY_MS))
    return spans if len(spans) <= MOST_SPANS else []


def _sums(
    asked: UsageQuery, part: _Slice, closed: Sequence[tuple[int, int]], after: Values | None
) -> sa.Select[Any]:
    """Group the calls of a slice: those of closed days by the roll-up, the others by the ledger."""
    sources = list(_sources(asked, part, closed))
    rows = (sources[0] if len(sources) == 1 else sa.union_all(*sources)).subquery()
    groups = [rows.c[name] for name in order_of(asked.by)]
    sums = (sa.func.coalesce(sa.func.sum(rows.c[name]), 0) for name in SUMS)
    query = sa.select(
        *groups, *(sa.cast(each, sa.BigInteger).label(name) for name, each in zip(SUMS, sums, strict=True))
    )
    if after is not None:
        values = (sa.literal(value, group.type) for value, group in zip(after, groups, strict=True))
        query = query.where(sa.tuple_(*groups) > sa.tuple_(*values))
    return query.group_by(*groups).order_by(*groups) if groups else query


def _sources(asked: UsageQuery, part: _Slice, closed: Sequence[tuple[int, int]]) -> Iterator[sa.Select[Any]]:
    """Yield a query for each span: SQLite would read the whole index for several in one, with OR between."""
    inside, outside = split(part.since, part.until, closed)
    by_user = asked.visible.user_id is not None or {"user", "key"} & {*asked.by}
    table = usage_daily_by_user if by_user else usage_daily
    where, of_users = asked.visible.where(table), part.of_users(table)
    for since, until in inside:
        query = sa.select(*_groups(table, asked.by), *(table.c[name] for name in SUMS)).where(*where)
        days = (table.c.day >= since // DAY_MS, table.c.day < until // DAY_MS)
        # The index by user leaves fewest: SQLite would take the one by day for the first and the last users.
        yield query.where(*of_users, *(map(filter_only, days) if of_users else days))
    where = [IS_CALL, *asked.visible.where(ledger), *part.of_users(ledger)]
    one = sa.literal_column("1", sa.BigInteger).label("calls")
    for since, until in outside:
        query = sa.select(*_groups(ledger, asked.by), one, *(ledger.c[name] for name in SUMS[1:])).where(
            *where
        )
        yield query.where(ledger.c.called_at >= since, ledger.c.called_at < until)


def _groups(table: sa.Table, by: Sequence[str]) -> Iterator[sa.ColumnElement[Any]]:
    for name in order_of(by):
        if name == "hour":
            yield (table.c.called_at // HOUR_MS).label(name)
        elif name == "day":
            yield (table.c.called_at // DAY_MS if table is ledger else table.c.day).label(name)
        else:
            yield sa.func.coalesce(table.c[COLUMN_OF[name]], "").label(name)


def split(
    since: int, until: int, spans: Sequence[tuple[int, int]]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Cut `since` <= t < `until` into what lies in one of the spans, which are in order, and what does not."""
    inside, outside = [], []
    for first, end in spans:
        first, end = max(first, since), min(end, until)
        if first >= end:
            continue
        if since < first:
            outside.append((since, first))
        inside.append((first, end))
        since = end
    if since < until:
        outside.append((since, until))
    return inside, outside
