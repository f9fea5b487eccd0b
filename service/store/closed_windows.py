"""Roll-up of closed budget windows into one row per day or month: the counters table holds open windows only.

A counter whose window is over and that holds nothing can never change again. Its row is deleted; the row of its day or
month sums the number of counters, their spending, and the fingerprints of their last states. Ledger entries stay:
`flask ledger check` replays them to each counter's last state, and these sums must match.
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
    """Additive hash modulo 2^63: the weight of sums is the sum of weights."""
    return (digest + counters * _COUNTER + spent * _NANO) & MASK


class Closed(NamedTuple):
    """Sums over the closed counters of one day or month."""

    counters: int = 0
    spent: int = 0  # nano-dollars
    digest: int = 0  # sum of fingerprints modulo 2^63

    def plus(self, other: Closed) -> Closed:
        return Closed(
            self.counters + other.counters, self.spent + other.spent, (self.digest + other.digest) & MASK
        )

    def __str__(self) -> str:
        return f"{self.counters} counters, {self.spent} spent (digest {self.digest:x})"


def roll_up(tx: Transaction, before: Mapping[str, int], limit: int) -> int:
    """Roll up at most `limit` counters whose window began before `before[period]` (ms); return how many."""
    rolled: dict[tuple[str, int], Closed] = defaultdict(Closed)
    done: list[str] = []
    # Days come first: while the limit is reached by days, months are not queried.
    for period, start in before.items():
        for row in tx.rows(_OVER.limit(limit - len(done)), {"period": period, "start": start}):
            state = entry_of(row)
            rolled[period, row["starts_at"]] = rolled[period, row["starts_at"]].plus(
                Closed(1, state.spent, state.fingerprint)
            )
            done.append(row["id"])
    for (period, start), sums in sorted(rolled.items()):
        _add(tx, period, start, sums)
    if done:
        tx.execute(sa.delete(counters).where(counters.c.id.in_(done)))
    return len(done)


def every(tx: Transaction) -> dict[tuple[str, int], Closed]:
    """Read all sums by (period, start in ms)."""
    return {(row["period"], row["starts_at"]): _closed(row) for row in tx.rows(sa.select(closed_windows))}


# `period <> 'total'` is the condition of the partial index. Rows locked by another upkeep are skipped.
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
_OF_WINDOW = (
    closed_windows.c.period == sa.bindparam("of_period"),
    closed_windows.c.starts_at == sa.bindparam("of"),
)
_ROW = sa.select(closed_windows).where(*_OF_WINDOW).with_for_update()
_CHANGE = (
    sa.update(closed_windows)
    .where(*_OF_WINDOW)
    .values(counters=sa.bindparam("n"), spent_nano=sa.bindparam("spent"), digest=sa.bindparam("sum"))
)


def _add(tx: Transaction, period: str, start: int, sums: Closed) -> None:
    key = {"period": period, "starts_at": start}
    tx.execute(InsertOnce(closed_windows), {**key, "counters": 0, "spent_nano": 0, "digest": 0})
    window = {"of_period": period, "of": start}
    row = tx.row(_ROW, window)
    total = sums if row is None else _closed(row).plus(sums)
    tx.execute(_CHANGE, {**window, "n": total.counters, "spent": total.spent, "sum": total.digest})


def _closed(row: Row) -> Closed:
    return Closed(row["counters"], row["spent_nano"], row["digest"])
