"""Usage reports: sums over settled calls, by hour, day, agent, model, user, key, end user and workspace.

Each call counts once: calls of a closed day from the roll-up (`service.store.rollup`), all others from the ledger. One
snapshot covers the closed days and both sources, so a day that is closed meanwhile is not counted twice. Answers
without a call come from sums of their own: whole days by day, parts of days by the hours that begin in them.

A page is read in slices, of days or of users, until it is full: its cost depends on its own lines, not on the size of
the report. Within a slice, keyset pagination starts after the cursor's values, never at an offset.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.database import Row, Transaction
from service.store.ledger import IS_CALL
from service.store.schema import (
    SAVED,
    SUMS,
    ledger,
    savings_daily,
    savings_daily_by_user,
    savings_hourly,
    usage_daily,
    usage_daily_by_user,
    usage_days,
    users,
    workspaces,
)
from service.store.transaction import filter_only
from service.store.visibility import UNRESTRICTED, Visibility
from service.types import DEFAULT_WORKSPACE

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
TIMES = ("day", "hour")  # counted from 1970
GROUPS = ("hour", "day", "agent", "model", "user", "key", "end_user", "workspace")
COLUMN_OF = {"agent": "agent", "model": "model", "user": "user_id", "key": "key_id", "end_user": "end_user"}
UNROLLED = frozenset({"hour", "end_user"})  # groups that the roll-up lacks: summed over single calls
FIGURES = (*SUMS, *SAVED)
MAX_SPANS = 100  # of closed days in one query; with more, only the ledger is read
GROWTH = 4  # factor of days or users from one slice to the next

Values = tuple[int | str, ...]  # of a line's groups, in the order of `order_of`


class UsageQuery(NamedTuple):
    """Usage report of the visible calls of `since` <= t < `until` (ms), grouped by some of `GROUPS`."""

    since: int
    until: int
    by: tuple[str, ...] = ()
    visible: Visibility = UNRESTRICTED


class _Slice(NamedTuple):
    """Slice of a report, no group divided: calls of `since` <= t < `until`, of users `first` <= id < `end`."""

    since: int
    until: int
    first: str | None = None
    end: str | None = None

    def of_users(self, table: sa.Table) -> list[sa.ColumnElement[bool]]:
        """Compile the user bounds to SQL; ledger rows without a user belong to the first slice."""
        bounds: list[sa.ColumnElement[bool]] = []
        if self.first:
            bounds.append(table.c.user_id >= self.first)
        if self.end is not None:
            below = table.c.user_id < self.end
            empty = table.c.user_id.nullable and not self.first  # with OR no index by user would be used
            bounds.append(sa.or_(below, table.c.user_id.is_(None)) if empty else below)
        return bounds


def order_of(by: Sequence[str]) -> tuple[str, ...]:
    """Sort order of the lines: by time where that is a group, else by user; then as requested."""
    times = [name for name in TIMES if name in by]
    first = times or [name for name in by if name == "user"]
    return (*first, *(name for name in by if name not in first))


def lines(
    tx: Transaction, report: UsageQuery, *, limit: int | None = None, after: Values | None = None
) -> list[Row]:
    """Read the sums of the groups in `order_of`: `limit` at most, after the cursor's values.

    Must be the first read of its transaction, for one snapshot. A group without a value is an empty string.
    """
    tx.use_one_snapshot()
    report = _widened(tx, report)
    closed = closed_spans(tx, report)
    if limit is None or not is_sliced(report):
        return tx.rows(_sums(report, _Slice(report.since, report.until), closed, after).limit(limit))
    found: list[Row] = []
    slices = _days(report, after) if order_of(report.by)[0] in TIMES else _users(tx, report, after, limit)
    for part in slices:
        found += tx.rows(_sums(report, part, closed, after).limit(limit - len(found)))
        if len(found) == limit:
            break
    return found


def total(tx: Transaction, report: UsageQuery) -> Row:
    """Sum the whole report, in the snapshot of `lines`."""
    report = _widened(tx, report._replace(by=()))
    [row] = tx.rows(_sums(report, _Slice(report.since, report.until), closed_spans(tx, report), None))
    return row


def _widened(tx: Transaction, report: UsageQuery) -> UsageQuery:
    """Report on all calls where that of `default` is the same, as there is no other workspace: by smaller tables."""
    if report.visible.workspace_id != DEFAULT_WORKSPACE:
        return report
    others = sa.select(workspaces.c.id).where(workspaces.c.id != DEFAULT_WORKSPACE).limit(1)
    if tx.row(others) is not None:
        return report
    return report._replace(visible=report.visible._replace(workspace_id=None))


def is_sliced(report: UsageQuery) -> bool:
    """Return whether there may be many groups, in an order that can be sliced; else each page sums the whole report."""
    fine = bool({"hour", "user", "key", "end_user"} & {*report.by})
    return fine and report.visible.user_id is None and bool({"hour", "day", "user"} & {*report.by})


def _days(report: UsageQuery, after: Values | None) -> Iterator[_Slice]:
    """Slice by days, from the cursor's day; each slice has `GROWTH` times the days of the one before."""
    since, length = report.since, DAY_MS
    if after is not None:
        unit = DAY_MS if order_of(report.by)[0] == "day" else HOUR_MS
        since = max(since, int(after[0]) * unit)
    while since < report.until:
        until = min(since // DAY_MS * DAY_MS + length, report.until)
        yield _Slice(since, until)
        since, length = until, length * GROWTH


def _users(tx: Transaction, report: UsageQuery, after: Values | None, limit: int) -> Iterator[_Slice]:
    """Yield ranges of user ids from the cursor's user on, bounded by ids of the users table."""
    first = None if after is None else str(after[0])
    for size in (limit // GROWTH * GROWTH**number + 1 for number in count()):
        query = sa.select(users.c.id).order_by(users.c.id).offset(size).limit(1)
        row = tx.row(query.where(users.c.id > first) if first else query)
        yield _Slice(report.since, report.until, first, row["id"] if row else None)
        if row is None:
            return
        first = row["id"]


def closed_spans(tx: Transaction, report: UsageQuery) -> list[tuple[int, int]]:
    """Spans (ms) of whole closed days in the report, adjacent days merged; empty where a group is `UNROLLED`."""
    if UNROLLED & {*report.by}:
        return []
    first, end = -(-report.since // DAY_MS), report.until // DAY_MS
    day = usage_days.c.day
    query = sa.select(day).where(day >= first, day < end, usage_days.c.checked_at.is_not(None))
    spans: list[tuple[int, int]] = []
    for row in tx.rows(query.order_by(day)):
        since = row["day"] * DAY_MS
        if spans and spans[-1][1] == since:
            since = spans.pop()[0]
        spans.append((since, (row["day"] + 1) * DAY_MS))
    return spans if len(spans) <= MAX_SPANS else []


def _sums(
    report: UsageQuery, part: _Slice, closed: Sequence[tuple[int, int]], after: Values | None
) -> sa.Select[Any]:
    """Query the sums of a slice: of its calls, and of its answers without one."""
    sources = [*_calls(report, part, closed), *_savings(report, part)]
    rows = sa.union_all(*sources).subquery()
    groups = [rows.c[name] for name in order_of(report.by)]
    sums = (sa.func.coalesce(sa.func.sum(rows.c[name]), 0) for name in FIGURES)
    query = sa.select(
        *groups, *(sa.cast(each, sa.BigInteger).label(name) for name, each in zip(FIGURES, sums, strict=True))
    )
    if after is not None:
        values = (sa.literal(value, group.type) for value, group in zip(after, groups, strict=True))
        query = query.where(sa.tuple_(*groups) > sa.tuple_(*values))
    return query.group_by(*groups).order_by(*groups) if groups else query


def _by_user(report: UsageQuery) -> bool:
    """Return whether a report needs sums by user."""
    of_some = report.visible.user_id is not None or report.visible.workspace_id is not None
    return of_some or bool({"user", "key", "workspace"} & {*report.by})


def _calls(report: UsageQuery, part: _Slice, closed: Sequence[tuple[int, int]]) -> Iterator[sa.Select[Any]]:
    """Yield a query for each span: for spans joined by OR, SQLite would read the whole index."""
    inside, outside = split(part.since, part.until, closed)
    visible = report.visible
    table = usage_daily_by_user if _by_user(report) else usage_daily
    where, of_users = visible.where(table), part.of_users(table)
    for since, until in inside:
        query = _select(table, report.by, *(table.c[name] for name in SUMS), *_NONE_SAVED).where(*where)
        days = (table.c.day >= since // DAY_MS, table.c.day < until // DAY_MS)
        # The index by user is the most selective: for the first and last users SQLite would choose the one by day.
        yield query.where(*of_users, *(map(filter_only, days) if of_users else days))
    where = [IS_CALL, *visible.where(ledger), *part.of_users(ledger)]
    one = sa.literal_column("1", sa.BigInteger).label("calls")
    for since, until in outside:
        sums = (ledger.c[name] for name in SUMS[1:])
        query = _select(ledger, report.by, one, *sums, *_NONE_SAVED).where(*where)
        yield query.where(ledger.c.called_at >= since, ledger.c.called_at < until)


def _savings(report: UsageQuery, part: _Slice) -> Iterator[sa.Select[Any]]:
    """Yield a query for each span: whole days from the sums by day, unless a group is `UNROLLED`; others by hour."""
    first, end = -(-part.since // DAY_MS) * DAY_MS, part.until // DAY_MS * DAY_MS
    whole = [] if UNROLLED & {*report.by} or first >= end else [(first, end)]
    days, hours = split(part.since, part.until, whole)
    by_day = savings_daily_by_user if _by_user(report) else savings_daily
    for table, at, unit, spans in (
        (by_day, by_day.c.day, DAY_MS, days),
        (savings_hourly, savings_hourly.c.hour, HOUR_MS, hours),
    ):
        for since, until in spans:
            of_users = part.of_users(table)
            query = _select(table, report.by, *_NO_CALLS, *(table.c[name] for name in SAVED))
            begins = (at >= -(-since // unit), at < -(-until // unit))
            query = query.where(*report.visible.where(table), *of_users)
            yield query.where(*(map(filter_only, begins) if of_users else begins))


def _zeros(names: Sequence[str]) -> list[sa.ColumnElement[Any]]:
    return [sa.literal_column("0", sa.BigInteger).label(name) for name in names]


_NO_CALLS, _NONE_SAVED = _zeros(SUMS), _zeros(SAVED)


def _select(table: sa.Table, by: Sequence[str], *sums: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Select the groups and sums of a table, joined with its users where their workspace is a group.

    What a workspace itself has spent has its id in place of a user's.
    """
    query = sa.select(*_groups(table, by), *sums)
    if "workspace" not in by:
        return query
    joined = table.outerjoin(users, users.c.id == table.c.user_id)
    return query.select_from(joined.outerjoin(workspaces, workspaces.c.id == table.c.user_id))


def _groups(table: sa.Table, by: Sequence[str]) -> Iterator[sa.ColumnElement[Any]]:
    for name in order_of(by):
        if name == "hour":
            yield (table.c.called_at // HOUR_MS if table is ledger else table.c.hour).label(name)
        elif name == "day":
            yield _day(table).label(name)
        elif name == "workspace":
            yield sa.func.coalesce(users.c.workspace_id, workspaces.c.id, DEFAULT_WORKSPACE).label(name)
        else:
            yield sa.func.coalesce(table.c[COLUMN_OF[name]], "").label(name)


def _day(table: sa.Table) -> sa.ColumnElement[Any]:
    if table is ledger:
        return ledger.c.called_at // DAY_MS
    return table.c.day if "day" in table.c else table.c.hour // 24


def split(
    since: int, until: int, spans: Sequence[tuple[int, int]]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Split `since` <= t < `until` into parts inside and outside of the spans, which are sorted."""
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
