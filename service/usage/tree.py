"""Reservation within a tree of sub-agents: a call's hold is taken from the tree's, which every cap has taken already.

The tree's hold is held at once before its first call. A call takes its most out of it and gives back what it did not
cost, in the transactions of its own step. So the counters of the caps change when a call is settled, by its cost alone,
and no cap has to be asked again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from service.errors import BudgetExceeded
from service.observe.observer import Observer
from service.store import bookings, holds, scope_locks
from service.store.cap_scopes import with_defaults
from service.store.database import Database, Transaction
from service.store.holds import Hold
from service.store.transaction import WriteInTransaction
from service.types import now_ms, usd
from service.usage.estimate import CallEstimate, Reserved

PAUSE = 0.05  # seconds between two looks at what calls side by side have given back


class HoldRefused(Exception):
    """Raised when a hold does not fit as things are, or not now: the transaction is rolled back."""


class TreeReservation:
    """Takes holds of calls from the holds of their trees. `patience`: seconds a call waits for others to give back."""

    def __init__(self, db: Database, observer: Observer, patience: float) -> None:
        self._db = db
        self._observer = observer
        self._patience = patience

    def reserve(
        self,
        estimate: CallEstimate,
        tree: Hold,
        write: Callable[[WriteInTransaction, WriteInTransaction], None],
        before_retry: Callable[[], None],
    ) -> Reserved:
        """Hold the most a call can cost, as `Spending.reserve` does. Raises `BudgetExceeded` where it does not fit."""
        end = time.monotonic() + self._patience
        tokens = estimate.max_tokens
        while True:
            hold = estimate.hold(tokens, now_ms())
            try:
                locks = partial(scope_locks.share, scopes=with_defaults(hold.scopes))
                write(locks, partial(_take, hold=hold))
                return Reserved(hold, tokens)
            except HoldRefused:
                before_retry()
            left, taken = self._db.query(partial(_state, tree=tree))
            tokens = estimate.affordable(left)
            if tokens < estimate.max_tokens and estimate.count is not None:
                estimate = estimate.counted()
                tokens = estimate.affordable(left)
            if tokens >= estimate.fewest:
                continue
            needed = estimate.worst(estimate.fewest)
            if needed > left + taken or time.monotonic() > end:
                raise self._over(left, needed)
            tokens = estimate.fewest
            time.sleep(PAUSE)

    def _over(self, left: int, needed: int) -> BudgetExceeded:
        self._observer.budget_refused("tree")
        left_usd = usd(left // 1_000 * 1_000)
        budget = {"scope": "tree", "period": "total", "left_usd": left_usd, "renews_at": None}
        detail = f"The sub-agents may spend {left_usd} dollars more, and this call needs {usd(needed)}."
        return BudgetExceeded(detail, extra={"budget": budget})


def _take(tx: Transaction, hold: Hold) -> None:
    if not holds.insert(tx, hold):
        return  # held already: the answer to an earlier commit was lost
    if not holds.take_from_tree(tx, hold):
        raise HoldRefused
    bookings.take_from_tree(tx, hold)


def _state(tx: Transaction, tree: Hold) -> tuple[int, int]:
    """Return what is left of a tree's hold, and what calls in flight have taken, in nano-dollars."""
    found = {hold.id: hold.amount_nano for hold in holds.of_tree(tx, tree)}
    left = found.pop(tree.id, 0)
    return left, sum(found.values())
