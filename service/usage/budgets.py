"""Budget caps: read, set, rebalance striped counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from service.audit.record import Action, record
from service.errors import Forbidden, NotFound
from service.observe.observer import Observer
from service.store import budgets as rows
from service.store import holds, ledger, scope_locks
from service.store.budgets import BudgetWindow
from service.store.database import Database, Row, Transaction
from service.store.scope_cost import settled_cost
from service.store.visibility import visible_to
from service.types import DEFAULT_WORKSPACE, Caller, now_ms, usd
from service.usage.budget_warnings import BudgetWarnings, Notify
from service.usage.caps import (
    NO_LIMIT,
    Cap,
    Period,
    Standing,
    cap_of,
    distribute,
    distribute_over,
    distribute_with_room,
    room,
    standing_of,
)

STRIPES = 8  # counter stripes of a window shared by all users, where the database has several writers
SHARED_BY_MANY = ("service", "workspace", "agent")  # users; admins of the service set these caps
# ms after which the cost of earlier calls is final, unless a hold is open: holds are written within a minute
# (`LATEST_HOLD`), and workers' clocks differ.
FINAL_AFTER = 600_000
MAX_REMEMBERED = 10_000  # scopes whose caps a process remembers


class FinalCost(NamedTuple):
    """Final cost of a window's calls made before `until` (ms), in nano-dollars."""

    window: BudgetWindow
    until: int
    nano: int


class Budgets:
    """Caps in force, and their `warnings`. `day`: the settings' defaults by kind of scope, in nano-dollars a day."""

    def __init__(
        self,
        db: Database,
        observer: Observer,
        *,
        day: Mapping[str, int | None] | None = None,
        notify: Notify = lambda tx, warning_id, public: None,
        has_agent: Callable[[str], bool] = lambda name: True,
    ) -> None:
        self._has_agent = has_agent
        self._db = db
        self.warnings = BudgetWarnings(db, observer, notify)
        self._defaults = day or {}
        self._stripes = 1 if db.sqlite else STRIPES
        self._set_caps: dict[str, list[Row]] = {}  # by scope, as last read

    def caps(self, tx: Transaction, scopes: Sequence[str]) -> list[Cap]:
        """List every cap on these scopes: caps that were set, and default caps for scopes without one."""
        usual = [row for scope in sorted(scopes) for row in self._set_caps.get(scope, ())]
        read = rows.read(tx, scopes, expect=usual)
        if read != usual:
            self._remember(scopes, read)
        found = [cap_of(row) for row in read]
        set_for_day = {cap.scope for cap in found if cap.period == "day"}
        for scope in scopes:
            amount = self._defaults.get(scope.partition(":")[0])
            if amount is not None and scope not in set_for_day:
                found.append(Cap(scope, "day", amount, default=True))
        return found

    def _remember(self, scopes: Sequence[str], read: Sequence[Row]) -> None:
        """Remember which caps were set on these scopes, as what the next transaction expects to read."""
        if len(self._set_caps) > MAX_REMEMBERED:
            self._set_caps.clear()
        for scope in scopes:
            self._set_caps.pop(scope, None)
            if of_scope := [row for row in read if row["scope"] == scope]:
                self._set_caps[scope] = of_scope

    def standing(self, tx: Transaction, caps: Iterable[Cap], at: int | None = None) -> list[Standing]:
        """Read the current state of these caps, or their state in the windows at `at` (ms)."""
        windows = [(cap, cap.window(at or now_ms())) for cap in caps]
        opened = rows.stripes(tx, [window for _, window in windows])
        return [standing_of(cap, window, opened.get(window.id, ())) for cap, window in windows]

    def of(self, scopes: Sequence[str]) -> list[Standing]:
        """Read the current state of every cap on these scopes."""
        return self._db.query(lambda tx: self.standing(tx, self.caps(tx, scopes)))

    def of_caller(self, caller: Caller) -> list[Standing]:
        """Read the caps on the caller's user and key; for operators, their workspace's, and `default`'s the service's.

        A key for some agents sees only its own caps: the user's would reveal spending on other agents.
        """
        visible = visible_to(caller)
        scopes = [] if visible.scopes else [f"user:{caller.user_id}"]
        scopes += [f"key:{caller.key_id}"] if caller.key_id else []
        if visible.user_id is None:
            scopes.append(f"workspace:{caller.workspace_id}")
            scopes += ["service"] if caller.workspace_id == DEFAULT_WORKSPACE else []
        return self.of(scopes)

    def page(self, *, limit: int, after: str | None, workspace_id: str | None = None) -> list[Standing]:
        """List the state of every cap that was set, or of a workspace's, after the cap id `after`.

        Of the whole, and of `default`, the service's own caps come first.
        """
        return self._db.query(lambda tx: self.standing(tx, self._page(tx, limit, after, workspace_id)))

    def _page(self, tx: Transaction, limit: int, after: str | None, workspace_id: str | None) -> list[Cap]:
        scope, _, period = (after or "service/").rpartition("/")
        found: list[Cap] = []
        if scope == "service" and workspace_id not in (None, DEFAULT_WORKSPACE):
            scope = period = ""
        if scope == "service":
            service = sorted(self.caps(tx, ["service"]), key=lambda cap: cap.id)
            found = [cap for cap in service if cap.period > period][:limit]
            scope = period = ""
        if len(found) < limit:
            found += map(cap_of, rows.after(tx, scope, period, limit - len(found), workspace_id))
        return found

    def look_up(self, scope: str, within: str | None = None) -> None:
        """Raise `NotFound` unless the scope's workspace, user, key, agent or session exists, `within` a workspace."""
        kind, _, name = scope.partition(":")
        if kind in ("service", "agent"):
            there = kind == "service" or self._has_agent(name)
        else:
            found = self._workspace_of(scope)
            there = found is not None and within in (None, found)
        if not there:
            raise NotFound(f"There is no {kind} {name}, so a cap on it would hold nobody.")

    def _workspace_of(self, scope: str) -> str | None:
        kind, _, name = scope.partition(":")
        if kind in ("service", "agent"):
            return None
        return self._db.query(lambda tx: rows.workspace_of(tx, kind, name))

    def put(self, scope: str, period: Period, amount: int | None, *, lower: bool = False) -> Standing:
        """Set a cap for the open window and all later ones; None lifts it, the default included.

        The window's spent and held amounts count, so a cap may be set below them: then no further call fits. `lower`:
        raises `Forbidden` above the one that is set.
        """
        return self._db.transact(self.setting(scope, period, amount, lower=lower))

    def setting(
        self, scope: str, period: Period, amount: int | None, *, lower: bool = False
    ) -> Callable[[Transaction], Standing]:
        """Build the write of `put`, for a transaction that has others too."""
        cap = Cap(scope, period, NO_LIMIT if amount is None else amount)
        settled = self._db.query(lambda tx: self._settled(tx, cap.window(now_ms())))
        workspace_id = self._workspace_of(scope)
        return lambda tx: self._set(tx, cap, workspace_id, settled, lower=lower)

    def put_first(self, tx: Transaction, scope: str, period: Period, amount: int, workspace_id: str) -> None:
        """Set a cap on a subject that this transaction makes: nothing has been spent on it."""
        now = now_ms()
        cap = Cap(scope, period, amount)
        self._set(tx, cap, workspace_id, FinalCost(cap.window(now), now, 0))

    def _set(
        self,
        tx: Transaction,
        cap: Cap,
        workspace_id: str | None,
        settled: FinalCost,
        *,
        lower: bool = False,
    ) -> Standing:
        # No hold is written against the scope until this transaction ends; later ones read the new cap.
        scope_locks.own(tx, cap.scope)
        known = rows.locked(tx, cap.scope, cap.period) if lower else None
        if known is not None and cap.amount > cap_of(known).amount:
            raise Forbidden("An admin raises this cap; you can lower it.")
        amount = cap.amount if cap.amount < NO_LIMIT else None
        rows.put(tx, cap.scope, cap.period, amount, workspace_id)
        _record(tx, cap, amount, workspace_id)
        return self._apply(tx, cap, settled)

    def _apply(self, tx: Transaction, cap: Cap, settled: FinalCost) -> Standing:
        """Apply a cap that was set to the open window, or open it. The caller has the scope's exclusive lock."""
        window = cap.window(now_ms())
        counters = rows.stripes(tx, [window], lock=True).get(window.id)
        if counters is None:  # no counter yet: count the holds that are open
            held = holds.adopt(tx, cap.scope, window.start, window.counter(0))
            return self._open(tx, cap, window, held, settled)
        shares = distribute_over(counters, cap.amount)
        ledger.shared(tx, "cap", window, cap.amount, rows.share(tx, counters, shares))
        return standing_of(cap, window, counters)._replace(cap=cap)

    def open(self, caps: Iterable[Cap], at: int) -> None:
        """Create the counters of these caps' windows where they do not exist yet."""
        wanted = sorted(caps)
        settled = {cap.id: self._db.query(partial(self._settled, window=cap.window(at))) for cap in wanted}

        def work(tx: Transaction) -> None:
            scope_locks.share(tx, [cap.scope for cap in wanted])
            for cap in wanted:
                row = rows.locked(tx, cap.scope, cap.period)  # lock: the cap may change
                fresh = cap if row is None else cap_of(row)
                self._open(tx, fresh, fresh.window(at), 0, settled[cap.id])

        self._db.transact(work)

    def _settled(self, tx: Transaction, window: BudgetWindow) -> FinalCost:
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
        shares = distribute(cap.amount, [spent + held] + [0] * ((self._stripes if wide else 1) - 1))
        opened = rows.insert(tx, window, shares, spent, held)
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
        ledger.shared(tx, "share", window, sum(shares), rows.share(tx, counters, shares))
        return str(counters[stripe]["id"])

    def stripe(self, window: BudgetWindow, seed: int) -> str:
        """Return the id of the stripe that a run takes from first: the same for all its calls, to contend with few."""
        wide = window.scope.partition(":")[0] in SHARED_BY_MANY
        return window.counter(seed % self._stripes if wide else 0)


def _record(tx: Transaction, cap: Cap, amount: int | None, workspace_id: str | None) -> None:
    told: dict[str, Any] = {"workspace_id": workspace_id, "period": cap.period}
    if amount is None:
        return record(tx, Action.CAP_REMOVED, cap.scope, **told)
    record(tx, Action.CAP_SET, cap.scope, **told, amount_usd=usd(amount))
