"""Budget caps: read, set."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from service.audit.record import Action, record
from service.errors import Forbidden, NotFound
from service.observe.observer import Observer
from service.store import budgets as rows
from service.store import caps as cap_rows
from service.store import scope_locks
from service.store.cap_scopes import end_user_of, is_default, subject_of
from service.store.database import Database, Transaction
from service.store.visibility import visible_to
from service.types import DEFAULT_WORKSPACE, Caller, now_ms, rfc3339, usd
from service.usage.budget_warnings import BudgetWarnings, Notify
from service.usage.budget_windows import BudgetWindows, FinalCost
from service.usage.caps import NO_LIMIT, Cap, Period, Standing, cap_of, standing_of
from service.usage.caps_in_force import CapsInForce


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
        self.in_force = CapsInForce(day or {})
        self.windows = BudgetWindows(db, self.in_force, observer)
        self.changed: Callable[[], None] = lambda: None  # called once a cap has been set

    def standing(self, tx: Transaction, caps: Iterable[Cap], at: int | None = None) -> list[Standing]:
        """Read the current state of these caps, or their state in the windows at `at` (ms)."""
        windows = [(cap, cap.window(at or now_ms())) for cap in caps]
        opened = rows.stripes(tx, [window for _, window in windows])
        return [standing_of(cap, window, opened.get(window.id, ())) for cap, window in windows]

    def of(self, scopes: Sequence[str]) -> list[Standing]:
        """Read the current state of every cap on these scopes."""

        def read(tx: Transaction) -> list[Standing]:
            return self.standing(tx, [cap for cap in self.in_force.read(tx, scopes) if not cap.only_counts])

        return self._db.query(read)

    def of_many(self, tx: Transaction, scopes: Sequence[str]) -> list[Standing]:
        """Read the current state of the caps on any number of scopes."""
        return self.standing(tx, self.in_force.of_many(tx, scopes))

    def of_scope(self, scope: str, workspace_id: str | None) -> list[Standing]:
        """Read the caps on a scope; none where its subject is not in this workspace. None: in any."""
        return self.of([scope]) if workspace_id in (None, self._workspace_of(scope)) else []

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
            service = sorted(self.in_force.read(tx, ["service"]), key=lambda cap: cap.id)
            found = [cap for cap in service if cap.period > period and not cap.only_counts][:limit]
            scope = period = ""
        if len(found) < limit:
            found += self.in_force.page(tx, scope, period, limit - len(found), workspace_id)
        return found

    def look_up(self, scope: str, within: str | None = None) -> None:
        """Raise `NotFound` unless the scope's workspace, user, key, agent or session exists, `within` a workspace."""
        kind, name = subject_of(scope)
        if kind in ("service", "agent"):
            there = kind == "service" or self._has_agent(name)
        else:
            found = self._workspace_of(scope)
            there = found is not None and within in (None, found)
        if not there:
            raise NotFound(f"There is no {kind} {name}, so a cap on it would hold nobody.")

    def _workspace_of(self, scope: str) -> str | None:
        kind, name = subject_of(scope)
        if kind in ("service", "agent"):
            return None
        return self._db.query(lambda tx: cap_rows.workspace_of(tx, kind, name))

    def put(
        self,
        scope: str,
        period: Period,
        amount: int | None,
        *,
        until: int | None = None,
        lower: bool = False,
    ) -> Standing:
        """Set a cap for the open window and all later ones; None lifts it, the default included.

        The window's spent and held amounts count, so a cap may be set below them: then no further call fits. `until`
        (ms): overrides the cap until then. `lower`: raises `Forbidden` above the one that is set, or comes back.
        """
        return self._db.transact(self.setting(scope, period, amount, until=until, lower=lower))

    def setting(
        self,
        scope: str,
        period: Period,
        amount: int | None,
        *,
        until: int | None = None,
        lower: bool = False,
    ) -> Callable[[Transaction], Standing]:
        """Build the write of `put`, for a transaction that has others too."""
        cap = Cap(scope, period, NO_LIMIT if amount is None else amount, until=until)
        settled = self._db.query(lambda tx: self.windows.settled(tx, cap.window(now_ms())))
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
        if lower:
            _refuse_more(tx, cap)
        amount = cap.amount if cap.amount < NO_LIMIT else None
        cap_rows.put(tx, cap.scope, cap.period, amount, workspace_id, cap.until)
        _record(tx, cap, amount, workspace_id)
        tx.after_commit(self.changed)
        fresh = self.in_force.locked(tx, cap.scope, cap.period) or cap
        end_user = end_user_of(cap.scope)
        if end_user is not None and is_default(cap.scope):  # counted by end user, each at its next call
            rows.make_stale(tx, end_user[0], cap.period)
            return Standing(fresh, fresh.window(now_ms()))
        return self.windows.apply(tx, fresh, fresh.window(now_ms()), settled)


def _refuse_more(tx: Transaction, cap: Cap) -> None:
    """Raise `Forbidden` for a cap above the one that is set, or that comes back after an override."""
    for row in cap_rows.locked(tx, [cap.scope], cap.period):
        known = cap_of(row, row["now"])
        if known is None:
            continue
        if cap.amount > min(known.amount, NO_LIMIT if known.after is None else known.after):
            raise Forbidden("An admin raises this cap; you can lower it.")


def _record(tx: Transaction, cap: Cap, amount: int | None, workspace_id: str | None) -> None:
    told: dict[str, Any] = {"workspace_id": workspace_id, "period": cap.period}
    told |= {} if cap.until is None else {"until": rfc3339(cap.until)}
    if amount is None:
        return record(tx, Action.CAP_REMOVED, cap.scope, **told)
    record(tx, Action.CAP_SET, cap.scope, **told, amount_usd=usd(amount))
