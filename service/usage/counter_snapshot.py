"""State of every counter at one moment: what a check of the books holds the ledger against.

A counter numbers its entries, so those that came after that moment are left out by their numbers, whenever the ledger
is read. Windows that are over do not change any more, so of them only sums are kept.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache

from service.store import budgets, closed_windows, ledger
from service.store.budgets import MASK, BudgetWindow, CounterEntry, entry_of
from service.store.closed_windows import Closed, weight
from service.store.database import Database, Transaction
from service.types import now_ms
from service.usage.caps import PERIODS, window_end

Span = tuple[str, int]  # a period and when it began: all windows of one day, of one month, or `total`
LATE_MS = 3_600_000  # a call begun before midnight is held a moment later, never an hour
UNKNOWN: Span = ("?", 0)
_MOMENT = re.compile("[0-9]{1,14}")
_LATEST = 2**45  # ms: beyond it no calendar reaches


@lru_cache(maxsize=4096)
def span_of(name: str) -> Span:
    """The span of a window or a counter, by its id."""
    _, period, start, *_ = (*name.split("/"), "", "")
    if period not in PERIODS or not _MOMENT.fullmatch(start) or int(start) > _LATEST:
        return UNKNOWN
    return period, int(start)


@lru_cache(maxsize=4096)
def _end(span: Span) -> int | None:
    return None if span == UNKNOWN else window_end(BudgetWindow("", *span))


def ended(span: Span, at: int) -> bool:
    """Tell whether the windows of a span were over at `at` (ms)."""
    end = _end(span)
    return end is not None and end <= at


class CounterSnapshot:
    """Counters as they were at one moment, read in one short snapshot.

    `last` has those that may still change, and all of the spans `wanted`; `rests` is, by span, what the fingerprints
    of all counters come to, those that were rolled up included. `uncut` are counters that none of their entries came
    after: their rows do not tell.
    """

    def __init__(self, wanted: Iterable[Span] = (), uncut: Iterable[str] = ()) -> None:
        self.counters = 0
        self.last: dict[str, CounterEntry] = {}
        self.rests: dict[Span, int] = defaultdict(int)
        self.closed: dict[Span, Closed] = {}
        self._wanted = frozenset(wanted)
        self._uncut = frozenset(uncut)
        self._over_at = now_ms() - LATE_MS

    @classmethod
    def take(cls, db: Database, wanted: Iterable[Span] = (), uncut: Iterable[str] = ()) -> CounterSnapshot:
        return db.query(lambda tx: cls(wanted, uncut)._read(tx))

    def counts(self, state: CounterEntry) -> bool:
        """Tell whether an entry that left this state came before the cut."""
        row = self.last.get(state.counter)
        if row is not None and state.seq <= row.seq:
            return True
        over = ended(span_of(state.counter), self._over_at) and (row is None or row.held == 0)
        return over or state.counter in self._uncut

    def rolled(self, counter: str) -> bool:
        """Tell whether a counter, which must be of the spans `wanted`, was rolled up."""
        return counter not in self.last and span_of(counter) in self.closed

    def _read(self, tx: Transaction) -> CounterSnapshot:
        ledger.one_snapshot(tx)
        self.closed = closed_windows.every(tx)
        for row in budgets.every_counter(tx):
            state = entry_of(row)
            span = span_of(state.counter)
            self.counters += 1
            self.rests[span] = (self.rests[span] + weight(1, state.spent, state.fingerprint)) & MASK
            if span in self._wanted or state.held != 0 or not ended(span, self._over_at):
                self.last[state.counter] = state
        for span, sums in self.closed.items():
            self.rests[span] = (self.rests[span] + weight(*sums)) & MASK
        return self


def moved_back(db: Database, later: dict[str, int], page: int = 500) -> set[str]:
    """Counters whose row does not know of an entry in the ledger: these ids, with the number of their last entry."""
    names = sorted(later)
    wrong: set[str] = set()
    for start in range(0, len(names), page):
        some = names[start : start + page]
        rows = db.query(lambda tx, some=some: budgets.counters_of(tx, some))  # type: ignore[misc]
        known = {row["id"]: row["seq"] for row in rows}
        wrong |= {name for name in some if known.get(name, 0) < later[name]}
    return wrong
