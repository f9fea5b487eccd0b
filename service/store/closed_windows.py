"""Closed windows, rolled into one row for each day and month: the table of counters stays as small as what is open.

A counter whose window is over and that holds nothing can never change again. Its row goes, and the row of its day or
month adds up how many there were, what they have spent, and the fingerprints of their last states. The entries of the
ledger stay: `flask ledger check` follows them to each counter's last state, and these sums must come out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import sqlalchemy as sa

from service.store.budgets import MASK, entry_of
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import closed_windows, counters

_COUNTER, _NANO = 0x5851F42D4C957F2D, 0x14057B7EF767814F  # any odd numbers


def weight(counters: int, spent: int, digest: int) -> int:
    """One number for all three, such that the weight of sums is the sum of weights (modulo 2^63)."""
    return (digest + counters * _COUNTER + spent * _NANO) & MASK


class Closed(NamedTuple):
    """Counters of one day or month together."""

    counters: int = 0
    spent: int = 0  # nano-dollars
    digest: int = 0  # the sum of their fingerprints

    def plus(self, other: Closed) -> Closed:
        return Closed(
            self.counters + other.counters, self.spent + other.spent, (self.digest + other.digest) & MASK
        )

    def __str__(self) -> str:
        return f"{self.counters} counters, {self.spent} spent (digest {self.digest:x})"


def roll_up(tx: Transaction, before: Mapping[str, int], limit: int) -> int:
    """Roll up at most `limit` counters whose window began before `before[its period]`; how many."""
    rolled: dict[tuple[str, int], Closed] = defaultdict(Closed)
    gone: list[str] = []
    # Days come first: while many of them are left, months are not looked for among them.
    for period, start in before.items():
        for row in tx.rows(_OVER.limit(limit - len(gone)), {"period": period, "start": start}):
            state = entry_of(row)
            rolled[period, row["starts_at"]] = rolled[period, row["starts_at"]].plus(
                Closed(1, state.spent, state.fingerprint)
            )
            gone.append(row["id"])
    for (period, start), sums in sorted(rolled.items()):
        _add(tx, period, start, sums)
    if gone:
        tx.execute(sa.delete(counters).where(counters.c.id.in_(gone)))
    return len(gone)


def every(tx: Transaction) -> dict[tuple[str, int], Closed]:
    """Every day and month with counters that were rolled up."""
    return {(row["period"], row["starts_at"]): _closed(row) for row in tx.rows(sa.select(closed_windows))}


# `period <> 'total'` is what the index says of its rows. Another upkeep's rows are left to it; no step wants these.
_OVER = (
    sa.select(counters)
    .where(
        sa.text("period <> 'total'"),
        counters.c.period == sa.bindparam("period"),
        counters.c.starts_at < sa.bindparam("start"),
        counters.c.held_nano == 0,
    )
    .order_by(counters.c.starts_at)
    .with_for_update(skip_locked=True)
)
_MINE = (
    closed_windows.c.period == sa.bindparam("of_period"),
    closed_windows.c.starts_at == sa.bindparam("of"),
)
_ROW = sa.select(closed_windows).where(*_MINE).with_for_update()
_CHANGE = (
    sa.update(closed_windows)
    .where(*_MINE)
    .values(counters=sa.bindparam("n"), spent_nano=sa.bindparam("spent"), digest=sa.bindparam("sum"))
)


def _add(tx: Transaction, period: str, start: int, sums: Closed) -> None:
    key = {"period": period, "starts_at": start}
    tx.execute(InsertOnce(closed_windows), {**key, "counters": 0, "spent_nano": 0, "digest": 0})
    mine = {"of_period": period, "of": start}
    row = tx.row(_ROW, mine)
    total = sums if row is None else _closed(row).plus(sums)
    tx.execute(_CHANGE, {**mine, "n": total.counters, "spent": total.spent, "sum": total.digest})


def _closed(row: Row) -> Closed:
    return Closed(row["counters"], row["spent_nano"], row["digest"])
