"""Windows of caps: their counters opened, striped and rebalanced, and their caps looked up again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from service.errors import BudgetExceeded
from service.observe.observer import Observer
from service.store import budgets as rows
from service.store import holds, ledger, scope_locks
from service.store.budgets import BudgetWindow
from service.store.cap_scopes import default_of, end_user_of
from service.store.database import Database, Row, Transaction
from service.store.scope_cost import settled_cost
from service.types import now_ms, rfc3339
from service.usage.caps import (
    NO_LIMIT,
    Cap,
    Standing,
    distribute,
    distribute_over,
    distribute_with_room,
    is_stale,
    room,
    standing_of,
    window_end,
)
from service.usage.caps_in_force import CapsInForce

STRIPES = 8  # counter stripes of a window shared by all users, where the database has several writers
SHARED_BY_MANY = ("service", "workspace", "agent")  # users; admins of the service set these caps
# ms after which the cost of earlier calls is final, unless a hold is open: holds are written within a minute
# (`LATEST_HOLD`), and workers' clocks differ.
FINAL_AFTER = 600_000
MAX_END_USERS = (
    100_000  # end users of a key under its default cap in one window; a call of another is refused
)


class FinalCost(NamedTuple):
    """Final cost of a window's calls made before `until` (ms), in nano-dollars."""

    window: BudgetWindow
    until: int
    nano: int


class BudgetWindows:
    """Windows of the caps `in_force`. `stripes`: counters of a cap shared by many."""

    def __init__(self, db: Database, in_force: CapsInForce, observer: Observer) -> None:
        self.stripes = 1 if db.sqlite else STRIPES
        self._db = db
        self._in_force = in_force
        self._observer = observer

    def prepare(self, caps: Iterable[Cap], counters: Mapping[str, Sequence[Row]], at: int) -> bool:
        """Open those windows at `at` (ms) that are not, and look up caps again where one has ended.

        `counters`: as read, by window. Return whether there were any. Raises `BudgetExceeded` for an end user too many.
        """
        found = [(cap, counters.get(cap.window(at).id)) for cap in caps]
        missing = [cap for cap, open_ones in found if open_ones is None]
        stale = [cap for cap, open_ones in found if open_ones is not None and is_stale(open_ones)]
        if missing:
            self.open(missing, at)
        for cap in stale:
            self._db.transact(partial(self._look_up_again, cap=cap, at=at))
        return bool(missing or stale)

    def open(self, caps: Iterable[Cap], at: int) -> None:
        """Create the counters of these caps' windows where they do not exist yet."""
        wanted = sorted(caps)
        settled = {cap.id: self._db.query(partial(self.settled, window=cap.window(at))) for cap in wanted}
        of_end_user = [cap for cap in wanted if end_user_of(cap.scope) is not None]
        others = [cap for cap in wanted if cap not in of_end_user]

        def work(tx: Transaction) -> None:
            scope_locks.share(tx, [cap.scope for cap in others])
            for cap in others:
                fresh = self._in_force.locked(tx, cap.scope, cap.period) or cap  # lock: the cap may change
                self._open(tx, fresh, fresh.window(at), 0, settled[cap.id])

        if others:
            self._db.transact(work)
        for cap in of_end_user:
            self._db.transact(
                partial(self._open_of_end_user, cap=cap, window=cap.window(at), settled=settled[cap.id])
            )

    def _open_of_end_user(
        self, tx: Transaction, cap: Cap, window: BudgetWindow, settled: FinalCost
    ) -> Standing:
        """Open the window of an end user's cap with all of the calls before it: its default may be new."""
        scope_locks.own(tx, cap.scope)
        fresh = self._in_force.locked(tx, cap.scope, cap.period) or cap
        if fresh.default and fresh.amount < NO_LIMIT and not rows.stripes(tx, [window]):
            self._refuse_crowd(tx, cap.scope, window)
        return self.apply(tx, fresh, window, settled)

    def _refuse_crowd(self, tx: Transaction, scope: str, window: BudgetWindow) -> None:
        """Raise `BudgetExceeded` where a key has `MAX_END_USERS` in a window: whoever invents names fills no table."""
        key_id, _ = end_user_of(scope) or ("", "")
        if rows.count_of_key(tx, key_id, window, MAX_END_USERS) < MAX_END_USERS:
            return
        self._observer.budget_refused("end_user")
        budget = {
            "scope": default_of(scope),
            "period": window.period,
            "renews_at": rfc3339(window_end(window)),
        }
        detail = f"The key has {MAX_END_USERS} end users with the {window.period}'s default cap: no more are served."
        raise BudgetExceeded(detail, extra={"budget": budget})

    def _look_up_again(self, tx: Transaction, cap: Cap, at: int) -> None:
        """Apply the cap in force to a window whose override has ended, or whose default was changed."""
        fresh = self._in_force.locked(tx, cap.scope, cap.period) or cap
        window = fresh.window(at)
        counters = rows.stripes(tx, [window], lock=True).get(window.id, [])
        if is_stale(counters):  # else another transaction has done it
            _share(tx, fresh, window, counters)

    def apply(self, tx: Transaction, cap: Cap, window: BudgetWindow, settled: FinalCost) -> Standing:
        """Apply a cap to its window, or open it. The caller has the scope's exclusive lock."""
        counters = rows.stripes(tx, [window], lock=True).get(window.id)
        if counters is None:  # no counter yet: count the holds that are open
            held = holds.adopt(tx, cap.scope, window.start, window.counter(0))
            return self._open(tx, cap, window, held, settled)
        return _share(tx, cap, window, counters)

    def settled(self, tx: Transaction, window: BudgetWindow) -> FinalCost:
        """Sum the final costs of a window that is not open. Slow, so it runs before any lock is taken.

        A call is settled while its hold is open, and a hold is written soon after it was made. So costs of calls older
        than both the oldest open hold and `FINAL_AFTER` are final; the order of the queries relies on this.
        """
        tx.use_one_snapshot()
        if rows.stripes(tx, [window]):
            return FinalCost(window, window.start, 0)
        oldest = holds.oldest(tx, window.scope)
        final = now_ms() - FINAL_AFTER
        until = max(window.start, final if oldest is None else min(final, oldest))
        return FinalCost(window, until, settled_cost(tx, window.scope, window.start, until))

    def _open(
        self, tx: Transaction, cap: Cap, window: BudgetWindow, held: int, settled: FinalCost
    ) -> Standing:
        if settled.window != window:  # midnight has passed in between
            settled = FinalCost(window, window.start, 0)
        spent = settled.nano + ledger.spent(tx, cap.scope, settled.until)
        wide = cap.scope.partition(":")[0] in SHARED_BY_MANY
        shares = distribute(cap.amount, [spent + held] + [0] * ((self.stripes if wide else 1) - 1))
        opened = rows.insert(tx, window, shares, cap.until, spent, held)
        if opened:
            ledger.shared(tx, "open", window, cap.amount, opened)
        return Standing(cap, window, spent, held)

    def with_room(self, window: BudgetWindow, counters: Sequence[Row], seed: int, amount: int) -> str:
        """Choose a window's counter to take `amount` from: the run's own, else another; rebalance if needed."""
        own = self.stripe(window, seed)
        best = max(counters, key=lambda row: (room(row) >= amount and row["id"] == own, room(row)))
        if room(best) >= amount:
            return str(best["id"])
        return self._db.transact(lambda tx: self._rebalance(tx, window, seed, amount))

    def _rebalance(self, tx: Transaction, window: BudgetWindow, seed: int, amount: int) -> str:
        counters = rows.stripes(tx, [window], lock=True)[window.id]
        best = max(counters, key=room)
        if room(best) >= amount:  # another transaction has rebalanced already
            return str(best["id"])
        stripe = seed % len(counters)
        shares = distribute_with_room(counters, stripe, amount)
        shared = rows.share(tx, counters, shares, counters[stripe]["cap_until"])
        ledger.shared(tx, "share", window, sum(shares), shared)
        return str(counters[stripe]["id"])

    def stripe(self, window: BudgetWindow, seed: int) -> str:
        """Return the id of the stripe that a run takes from first: the same for all its calls, to contend with few."""
        wide = window.scope.partition(":")[0] in SHARED_BY_MANY
        return window.counter(seed % self.stripes if wide else 0)


def _share(tx: Transaction, cap: Cap, window: BudgetWindow, counters: Sequence[Row]) -> Standing:
    """Distribute a cap over the counters of its window, which are locked."""
    shares = rows.share(tx, counters, distribute_over(counters, cap.amount), cap.until)
    ledger.shared(tx, "cap", window, cap.amount, shares)
    return standing_of(cap, window, counters)._replace(cap=cap)
