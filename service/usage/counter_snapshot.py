"""Snapshot of every counter at one moment, which a ledger check compares the ledger with.

A counter numbers its entries, so entries later than the snapshot are left out by number, whenever the ledger is read.
Windows that have ended do not change any more, so only sums of them are kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from service.store import budgets, closed_windows
from service.store.budgets import MASK, BudgetWindow, CounterEntry, entry_of
from service.store.closed_windows import Closed, weight
from service.store.database import Database, Transaction
from service.types import now_ms
from service.usage.caps import PERIODS, window_end

Span = tuple[str, int]  # a period and its start (ms): all windows of one day, of one month, or `total`
LATE_MS = 3_600_000  # a call begun before midnight may be held a moment after it, never an hour
UNKNOWN: Span = ("?", 0)
_MOMENT = re.compile("[0-9]{1,14}")
_LATEST = 2**45  # ms: beyond the range of calendar functions


@lru_cache(maxsize=4096)
def span_of(name: str) -> Span:
    """Parse the span from the id of a window or counter, from its end: an end user's name may have slashes."""
    *_, one, two, three = ("", "", *name.split("/"))
    period, start = (two, three) if two in PERIODS else (one, two)
    if period not in PERIODS or not _MOMENT.fullmatch(start) or int(start) > _LATEST:
        return UNKNOWN
    return period, int(start)


@lru_cache(maxsize=4096)
def _end(span: Span) -> int | None:
    return None if span == UNKNOWN else window_end(BudgetWindow("", *span))


def ended(span: Span, at: int) -> bool:
    """Return whether the windows of a span had ended at `at` (ms)."""
    end = _end(span)
    return end is not None and end <= at


class CounterSnapshot:
    """Counters at one moment, read in one short transaction.

    `last` has the counters that may still change, and all of `spans`; `sums` is, by span, the sum of all counters'
    fingerprints, rolled-up ones included. `incomplete` are counters whose rows miss entries of the ledger: none of
    their entries counts as later than the snapshot.
    """

    def __init__(self, spans: Iterable[Span] = (), incomplete: Iterable[str] = ()) -> None:
        self.counters = 0
        self.last: dict[str, CounterEntry] = {}
        self.sums: dict[Span, int] = defaultdict(int)
        self.closed: dict[Span, Closed] = {}
        self._spans = frozenset(spans)
        self._incomplete = frozenset(incomplete)
        self._over_at = now_ms() - LATE_MS

    @classmethod
    def take(
        cls, db: Database, spans: Iterable[Span] = (), incomplete: Iterable[str] = ()
    ) -> CounterSnapshot:
        return db.query(lambda tx: cls(spans, incomplete)._read(tx))

    def counts(self, state: CounterEntry) -> bool:
        """Return whether an entry that left this state came before the snapshot."""
        row = self.last.get(state.counter)
        if row is not None and state.seq <= row.seq:
            return True
        over = ended(span_of(state.counter), self._over_at) and (row is None or row.held == 0)
        return over or state.counter in self._incomplete

    def rolled(self, counter: str) -> bool:
        """Return whether a counter, which must belong to `spans`, was rolled up."""
        return counter not in self.last and span_of(counter) in self.closed

    def _read(self, tx: Transaction) -> CounterSnapshot:
        tx.use_one_snapshot()
        self.closed = closed_windows.every(tx)
        for row in budgets.every_counter(tx):
            state = entry_of(row)
            span = span_of(state.counter)
            self.counters += 1
            self.sums[span] = (self.sums[span] + weight(1, state.spent, state.fingerprint)) & MASK
            if span in self._spans or state.held != 0 or not ended(span, self._over_at):
                self.last[state.counter] = state
        for span, sums in self.closed.items():
            self.sums[span] = (self.sums[span] + weight(*sums)) & MASK
        return self


def moved_back(db: Database, later: dict[str, int], page: int = 500) -> set[str]:
    """Return counters whose row is older than the ledger; `later` maps counter ids to their last entry's number."""
    names = sorted(later)
    behind: set[str] = set()
    for start in range(0, len(names), page):
        some = names[start : start + page]
        rows = db.query(lambda tx, some=some: budgets.counters_of(tx, some))  # type: ignore[misc]
        known = {row["id"]: row["seq"] for row in rows}
        behind |= {name for name in some if known.get(name, 0) < later[name]}
    return behind
