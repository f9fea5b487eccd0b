"""Budget caps: read, set, rebalance sharded counters, warn."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from service.errors import DatabaseUnavailable, NotFound
from service.observe.observer import Observer
from service.store import budgets as rows
from service.store import holds, ledger, scope_locks
from service.store.budgets import BudgetWindow
from service.store.database import Database, Row, Transaction
from service.store.scope_cost import settled_cost
from service.types import Caller, now_ms
from service.usage.caps import (
    LEVELS,
    NO_LIMIT,
    BudgetWarning,
    Cap,
    Period,
    Standing,
    cap_of,
    dealt,
    gathered,
    level,
    room,
    shared_out,
    standing_of,
)

log = logging.getLogger("slipway.money")
STRIPES = 8  # of a window that everyone shares, where the database has more than one writer
SHARED_BY_MANY = ("service", "agent")
# ms after which what a call from before has cost stands, unless its hold is open: a hold is written within a minute
# (`LATEST_HOLD`), and clocks of workers differ.
FINAL_AFTER = 600_000
Notify = Callable[[Transaction, str, Mapping[str, Any]], None]


class FinalCost(NamedTuple):
    """Final cost of a window's calls from before `until` (ms), in nano-dollars."""

    window: BudgetWindow
    until: int
    nano: int


class Budgets:
    """Caps in force. `user_day` and `service_day` are the settings' defaults, in nano-dollars.

    `notify` gets each warning once, as its id and its public form, in the transaction that notes it: what it writes
    there is as sure as the note.
    """

    def __init__(
        self,
        db: Database,
        observer: Observer,
        *,
        user_day: int | None = None,
        service_day: int | None = None,
        notify: Notify = lambda tx, warning_id, public: None,
        has_agent: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self._has_agent = has_agent
        self._db = db
        self._observer = observer
        self._defaults = {"user": user_day, "service": service_day}
        self._notify = notify
        self._stripes = 1 if db.sqlite else STRIPES

    def caps(self, tx: Transaction, scopes: Sequence[str]) -> list[Cap]:
        """List every cap on these scopes: those that were set, and the defaults of the others."""
        found = [cap_of(row) for row in rows.read(tx, scopes)]
        set_for_day = {cap.scope for cap in found if cap.period == "day"}
        for scope in scopes:
            amount = self._defaults.get(scope.partition(":")[0])
            if amount is not None and scope not in set_for_day:
                found.append(Cap(scope, "day", amount, default=True))
        return found

    def standing(self, tx: Transaction, caps: Iterable[Cap], at: int | None = None) -> list[Standing]:
        """Read how these caps stand now."""
        windows = [(cap, cap.window(at or now_ms())) for cap in caps]
        opened = rows.stripes(tx, [window for _, window in windows])
        return [standing_of(cap, window, opened.get(window.id, ())) for cap, window in windows]

    def of(self, scopes: Sequence[str]) -> list[Standing]:
        """Read how every cap on these scopes stands."""
        return self._db.query(lambda tx: self.standing(tx, self.caps(tx, scopes)))

    def of_caller(self, caller: Caller) -> list[Standing]:
        """Read how the caps on the user and the key stand; for operators the service's too.

        A key with scopes sees its own: the user's tells what was spent on other agents.
        """
        scopes = [] if caller.scopes else [f"user:{caller.user_id}"]
        scopes += [f"key:{caller.key_id}"] if caller.key_id else []
        scopes += [] if caller.role == "user" else ["service"]
        return self.of(scopes)

    def page(self, *, limit: int, after: str | None) -> list[Standing]:
        """List how every cap stands that somebody set, after the id `after`; the service's own caps come first."""
        return self._db.query(lambda tx: self.standing(tx, self._page(tx, limit, after)))

    def _page(self, tx: Transaction, limit: int, after: str | None) -> list[Cap]:
        scope, _, period = (after or "service/").rpartition("/")
        found: list[Cap] = []
        if scope == "service":
            service = sorted(self.caps(tx, ["service"]), key=lambda cap: cap.id)
            found = [cap for cap in service if cap.period > period][:limit]
            scope = period = ""
        if len(found) < limit:
            found += map(cap_of, rows.after(tx, scope, period, limit - len(found)))
        return found

    def look_up(self, scope: str) -> None:
        """Raise `NotFound` where there is no such user, key, agent or session."""
        kind, _, name = scope.partition(":")
        there = kind == "service" or (
            self._has_agent(name)
            if kind == "agent"
            else self._db.query(lambda tx: rows.has_subject(tx, kind, name))
        )
        if not there:
            raise NotFound(f"There is no {kind} {name}, so a cap on it would hold nobody.")

    def put(self, scope: str, period: Period, amount: int | None) -> Standing:
        """Set a cap, from now on and for the window that is open; None lifts it, the default included.

        What the window has spent and holds counts, so a cap may be set below it: then nothing more fits.
        """
        cap = Cap(scope, period, NO_LIMIT if amount is None else amount)
        settled = self._db.query(lambda tx: self._settled(tx, cap.window(now_ms())))
        return self._db.transact(lambda tx: self._put(tx, cap, amount, settled))

    def _put(self, tx: Transaction, cap: Cap, amount: int | None, settled: FinalCost) -> Standing:
        # Nobody holds against the scope until this ends: whoever comes after it reads the cap as it is then.
        scope_locks.own(tx, cap.scope)
        rows.put(tx, cap.scope, cap.period, amount)
        window = cap.window(now_ms())
        counters = rows.stripes(tx, [window], lock=True).get(window.id)
        if counters is None:  # nobody counts yet: what goes on is counted in
            held = holds.adopt(tx, cap.scope, window.start, window.counter(0))
            return self._open(tx, cap, window, held, settled)
        shares = shared_out(counters, cap.amount)
        ledger.shared(tx, "cap", window, cap.amount, rows.share(tx, counters, shares))
        return standing_of(cap, window, counters)._replace(cap=cap)

    def open(self, caps: Iterable[Cap], at: int) -> None:
        """Open the windows of these caps that nobody has opened yet."""
        wanted = sorted(caps)
        settled = {cap.id: self._db.query(partial(self._settled, window=cap.window(at))) for cap in wanted}

        def work(tx: Transaction) -> None:
            scope_locks.share(tx, [cap.scope for cap in wanted])
            for cap in wanted:
                row = rows.locked(tx, cap.scope, cap.period)  # else it could change, and open as it was
                fresh = cap if row is None else cap_of(row)
                self._open(tx, fresh, fresh.window(at), 0, settled[cap.id])

        self._db.transact(work)

    def _settled(self, tx: Transaction, window: BudgetWindow) -> FinalCost:
        """Sum what is final of a window that is not open: read before any lock is taken, as it may take a while.

        A call is settled while its hold is open, and a hold is written soon after it was made. So what calls from
        before both have cost stands: it is asked for in this order.
        """
        ledger.one_snapshot(tx)
        if rows.stripes(tx, [window]):
            return FinalCost(window, window.start, 0)
        oldest = holds.oldest(tx, window.scope)
        final = now_ms() - FINAL_AFTER
        until = max(window.start, final if oldest is None else min(final, oldest))
        return FinalCost(window, until, settled_cost(tx, window.scope, window.start, until))

    def _open(
        self, tx: Transaction, cap: Cap, window: BudgetWindow, held: int, settled: FinalCost
    ) -> Standing:
        if settled.window != window:  # midnight has passed since
            settled = FinalCost(window, window.start, 0)
        spent = settled.nano + ledger.spent(tx, cap.scope, settled.until)
        wide = cap.scope.partition(":")[0] in SHARED_BY_MANY
        shares = dealt(cap.amount, [spent + held] + [0] * ((self._stripes if wide else 1) - 1))
        opened = rows.insert(tx, window, shares, spent, held)
        if opened:
            ledger.shared(tx, "open", window, cap.amount, opened)
        return Standing(cap, window, spent, held)

    def with_room(self, window: BudgetWindow, counters: Sequence[Row], seed: int, amount: int) -> str:
        """Choose the counter of a window to take `amount` from: the run's own, else another; rebalance if need be."""
        mine = self.stripe(window, seed)
        best = max(counters, key=lambda row: (room(row) >= amount and row["id"] == mine, room(row)))
        if room(best) >= amount:
            return str(best["id"])
        return self._db.transact(lambda tx: self._rebalance(tx, window, seed, amount))

    def _rebalance(self, tx: Transaction, window: BudgetWindow, seed: int, amount: int) -> str:
        counters = rows.stripes(tx, [window], lock=True)[window.id]
        best = max(counters, key=room)
        if room(best) >= amount:  # somebody else was quicker
            return str(best["id"])
        stripe = seed % len(counters)
        shares = gathered(counters, stripe, amount)
        ledger.shared(tx, "share", window, sum(shares), rows.share(tx, counters, shares))
        return str(counters[stripe]["id"])

    def stripe(self, window: BudgetWindow, seed: int) -> str:
        """Name the counter of a window that a run takes from first: always the same, so its calls cross no other's."""
        wide = window.scope.partition(":")[0] in SHARED_BY_MANY
        return window.counter(seed % self._stripes if wide else 0)

    def watch(self, tx: Transaction, counters: Iterable[Row]) -> None:
        """Warn of windows that have passed a level, after the commit that changes these counters.

        A window has not passed one before a stripe of it has; so only that stripe's calls look at the whole.
        """
        for row in counters:
            if level(row["spent_nano"], row["cap_nano"]) > row["warned"]:
                tx.after_commit(partial(self.warn, row["window_id"]))

    def warn(self, window_id: str, *, refused: bool = False) -> None:
        """Warn of every level a window has passed, each once however many see it.

        `refused`: a call no longer fits, so from 80 percent on it is used up: what is left is of no use. Never
        raises: what cannot be told now is told later.
        """
        try:
            standing, warned = self._db.query(lambda tx: self._level(tx, window_id), patience=0)
            percent = level(standing.spent, standing.cap.amount)
            percent = 100 if refused and percent >= 80 else percent
            for passed in LEVELS:
                warning = BudgetWarning(passed, standing)
                if warned < passed <= percent and self._db.transact(partial(self._note, warning=warning)):
                    scope = standing.cap.scope.partition(":")[0]
                    self._observer.budget_warning(scope, passed, warning.public())
        except DatabaseUnavailable:
            log.warning("budget_warning_deferred", extra={"window": window_id})

    def _level(self, tx: Transaction, window_id: str) -> tuple[Standing, int]:
        scope, period, start = window_id.rsplit("/", 2)
        window = BudgetWindow(scope, period, int(start))
        counters = rows.stripes(tx, [window]).get(window_id, [])
        warned = min((row["warned"] for row in counters), default=100)  # nobody counts: nothing to warn of
        return standing_of(Cap(scope, period, 0), window, counters), warned

    def _note(self, tx: Transaction, warning: BudgetWarning) -> bool:
        noted = rows.warn(tx, warning.standing.window.id, warning.percent)
        if noted:
            self._notify(tx, warning.id, warning.public())
        return noted
