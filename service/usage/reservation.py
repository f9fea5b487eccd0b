"""Reservation: hold the most a model call can cost against every cap, then settle it to the actual cost.

A hold is written in the transaction that starts the step, a settlement in the one that stores its result. The common
case is one conditional update of the counters. Everything else (opening a window, rebalancing stripes, counting a
prompt, shortening an answer) is done outside that transaction, and then the hold is tried again.
"""

from __future__ import annotations

import itertools
import logging
import time
import zlib
from collections.abc import Callable, Sequence
from functools import partial

from service.errors import AgentStopped, BudgetExceeded
from service.observe.observer import Observer, Settled
from service.store import agent_stops, bookings, holds, ledger, scope_locks
from service.store import budgets as counters
from service.store.cap_scopes import with_defaults
from service.store.database import Database, Row, Transaction
from service.store.holds import Hold
from service.store.transaction import WriteInTransaction
from service.types import DEFAULT_WORKSPACE, Run, Usage, UsageSource, now_ms, usd
from service.usage.budgets import Budgets
from service.usage.caps import Standing
from service.usage.estimate import CallEstimate, HoldAttempt, Placed, Reserved, Settlement
from service.usage.prices import Price
from service.usage.tree import HoldRefused, TreeReservation

log = logging.getLogger("slipway.money")
PATIENCE = 3.0  # seconds a call waits for calls under way to release money
FIRST_PAUSE, MAX_PAUSE = 0.02, 0.25
NOTHING = ledger.SettledCall(Usage(), 0, 0, "nothing")
LATEST_HOLD = 60_000  # ms from creating a hold to writing it; an older one is created anew


class Spending:
    """Holds and settlements. One per process; `run_most` is the most one run may spend, in nano-dollars.

    `used` receives the usage of a user's call, once its settlement is committed.
    """

    def __init__(
        self,
        db: Database,
        budgets: Budgets,
        observer: Observer,
        *,
        run_most: int | None = None,
        patience: float = PATIENCE,
        used: Callable[[str, Usage], None] | None = None,
    ) -> None:
        self._db = db
        self._budgets = budgets
        self._observer = observer
        self._run_most = run_most
        self._patience = patience
        self._used = used or (lambda user_id, usage: None)
        self._trees = TreeReservation(db, observer, patience)

    def remaining_budget(self, run: Run) -> int | None:
        """Return a run's remaining budget in nano-dollars; None: limited by the caps only."""
        most = self._most_of(run)
        return None if most is None else max(0, most - run.cost_nano)

    def check_run(self, estimate: CallEstimate, total: int) -> None:
        """Check what a run has spent and holds, in nano-dollars, against the most of one. Raises `BudgetExceeded`."""
        most = self._most_of(estimate.run)
        if most is not None and total > most:
            raise self._over_run(estimate)

    def _most_of(self, run: Run) -> int | None:
        """Return the most that a run may cost in all: the setting's, or less by its own request."""
        bounds = [most for most in (self._run_most, run.request.cap_nano) if most is not None]
        return min(bounds, default=None)

    def has_room(self, estimate: CallEstimate) -> bool:
        """Return whether a call would fit every cap as things are."""
        hold = estimate.hold(estimate.max_tokens, now_ms())
        return all(hold.amount_nano <= state.left for state in self._budgets.of(hold.scopes))

    def check_running(self, agent: str) -> None:
        """Check that an agent is not stopped. Raises `AgentStopped`."""
        if self._db.query(lambda tx: agent_stops.get(tx, agent)) is not None:
            raise AgentStopped(f"The agent {agent} is stopped.")

    def reserve(
        self,
        estimate: CallEstimate,
        write: Callable[[WriteInTransaction, WriteInTransaction], None],
        before_retry: Callable[[], None],
    ) -> Reserved:
        """Hold the most a call can cost; `write` commits a transaction with a lock and the hold in it.

        Settlements in that transaction come between the two: see "Locks" in docs/architecture.md. `before_retry` may
        end the wait by raising, and should settle pending settlements. Raises `BudgetExceeded` when not even a short
        answer fits, and `AgentStopped`.
        """
        if estimate.input_tokens is None:
            estimate = estimate.counted()
        if estimate.tree is not None:
            return self._trees.reserve(estimate, estimate.tree, write, before_retry)
        end = time.monotonic() + self._patience
        pause = FIRST_PAUSE
        attempt = HoldAttempt(estimate, estimate.max_tokens)
        for number in itertools.count():
            hold = attempt.estimate.hold(attempt.tokens, now_ms())
            placed = Placed(hold, attempt.counters)
            if estimate.most is None or hold.amount_nano <= estimate.most:
                try:
                    locks = partial(scope_locks.share, scopes=with_defaults(hold.scopes))
                    write(locks, partial(self._take, placed=placed))
                    return Reserved(placed.hold, attempt.tokens)
                except HoldRefused:
                    pass
            before_retry()
            attempt, fits = self._make_room(attempt.estimate, hold, waits=time.monotonic() < end)
            if not fits or number > 3:  # back off: other calls keep taking the room first
                time.sleep(pause)
                pause = min(pause * 2, MAX_PAUSE)
        raise AssertionError("one of the attempts returns, or raises")

    def settle(self, hold: Hold, price: Price, usage: Usage, basis: str = "exact") -> Settlement:
        """Settle to the usage, exact or estimated."""
        cost = price.cost(usage)
        prompt = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        plain = Usage(prompt, usage.output_tokens, server_tool_requests=usage.server_tool_requests)
        uncached = cost if plain == usage else price.cost(plain)
        unbatched = price._replace(batched=False).cost(plain) if price.batched else uncached
        call = ledger.SettledCall(usage, cost, uncached - cost, basis, unbatched - uncached)
        source: UsageSource = "reported" if basis == "exact" else "estimated"
        return Settlement(usage, cost, source, lambda tx: self._settle(tx, hold, call))

    def settle_unused(self, hold: Hold) -> Settlement:
        """Settle to zero a call for which the provider did no work; release what is left of a tree's hold."""
        return Settlement(Usage(), 0, "reported", lambda tx: self._settle(tx, hold, NOTHING))

    def settle_worst(self, hold: Hold) -> Settlement:
        """Settle to the full hold a call whose charge by the provider cannot be known.

        The hold of a tree is released: its calls have their own.
        """
        if hold.is_tree:
            return self.settle_unused(hold)
        cost = hold.amount_nano
        call = ledger.SettledCall(Usage(), cost, 0, "worst")
        return Settlement(Usage(), cost, "worst", lambda tx: self._settle(tx, hold, call))

    def end_tree(self, tree: Hold) -> Settlement:
        """Release what is left of a tree's hold, once its calls are settled."""
        found = self._db.query(lambda tx: holds.of_tree(tx, tree))
        return self.settle_unused(next((hold for hold in found if hold.is_tree), tree))

    def settle_lost(self, run: Run) -> list[Settlement]:
        """Settle, at their worst, calls of earlier attempts at this run, whose workers died, and end their trees."""
        found = self._db.query(lambda tx: holds.of_run(tx, run.id))
        return [self.settle_worst(hold) for hold in found if hold.attempt < run.attempt]

    def _take(self, tx: Transaction, placed: Placed) -> None:
        """Hold against every cap, all or none. Raises `HoldRefused`."""
        caps = self._budgets.in_force.read(tx, placed.hold.scopes)
        windows = [cap.window(placed.hold.called_at) for cap in caps]
        seed = _seed(placed.hold)
        ids = sorted(
            placed.chosen.get(window.id) or self._budgets.windows.stripe(window, seed) for window in windows
        )
        hold = placed.hold = placed.hold._replace(counters=tuple(ids))
        if not holds.insert(tx, hold):
            return  # held already: the answer to an earlier commit was lost
        # Out of order: the settlements of this transaction are then committed by themselves first.
        if not counters.may_lock(tx, ids) or now_ms() - hold.called_at > LATEST_HOLD:
            raise HoldRefused
        if not bookings.hold(tx, hold):
            raise HoldRefused

    def _settle(self, tx: Transaction, held: Hold, call: ledger.SettledCall) -> None:
        rest = held.amount_nano - call.cost
        to_tree = held.in_tree and holds.give_back(tx, held, rest)
        hold = holds.close(tx, held)
        if hold is None:  # settled already: by this same write, another worker, or the sweep
            if to_tree:
                holds.give_back(tx, held, -rest)
            return
        if hold.is_tree:
            bookings.release(tx, hold, self._budgets.warnings.watch)
            return
        bookings.settle(tx, hold, call, self._budgets.warnings.watch, to_tree=to_tree)
        settled = Settled(
            *(hold.id, hold.agent, hold.model, call.usage, call.cost, hold.amount_nano),
            *(call.saved, call.batch_saved),
        )
        tx.after_commit(lambda: self._observer.settlement(settled))
        tx.after_commit(lambda: self._used(hold.user_id, call.usage))

    def _make_room(self, estimate: CallEstimate, hold: Hold, *, waits: bool) -> tuple[HoldAttempt, bool]:
        """Return the next attempt, and whether it fits now; if not, the caller waits before trying it.

        Raises `BudgetExceeded` when nothing fits and calls under way will not change that in time.
        """
        standing, opened = self._db.query(lambda tx: self._look(tx, hold))
        if self._budgets.windows.prepare([state.cap for state in standing], opened, hold.called_at):
            return HoldAttempt(estimate, estimate.max_tokens), True
        limits = [state.left for state in standing] + ([] if estimate.most is None else [estimate.most])
        left = min(limits, default=hold.amount_nano)
        tokens, fewest = estimate.affordable(left), _fewest(estimate, standing)
        if (
            tokens < estimate.max_tokens
            and estimate.count is not None
            and (estimate.waits or estimate.price.worst(0, fewest) <= left)
        ):
            return HoldAttempt(estimate.counted(), estimate.max_tokens), True
        if tokens >= fewest:
            amount, seed = estimate.worst(tokens), _seed(hold)
            chosen = {
                state.window.id: self._budgets.windows.with_room(
                    state.window, opened[state.window.id], seed, amount
                )
                for state in standing
            }
            return HoldAttempt(estimate, tokens, chosen), True
        needed = estimate.worst(fewest)
        if estimate.most is not None and needed > estimate.most:
            raise self._over_run(estimate)
        if waits and all(state.spent + needed <= state.cap.amount for state in standing):
            return HoldAttempt(estimate, estimate.max_tokens), False
        raise self._over(min(standing, key=lambda state: state.left), needed, hold)

    def _look(self, tx: Transaction, hold: Hold) -> tuple[list[Standing], dict[str, list[Row]]]:
        standing = self._budgets.standing(tx, self._budgets.in_force.read(tx, hold.scopes), hold.called_at)
        return standing, counters.stripes(tx, [state.window for state in standing])

    def _over(self, state: Standing, needed: int, hold: Hold) -> BudgetExceeded:
        scope = state.cap.scope
        kind = scope.partition(":")[0]
        self._observer.budget_refused(kind)
        self._budgets.warnings.warn(state.window.id, refused=True)
        public = state.public()
        detail = f"The {state.cap.period}'s cap of {scope} is reached"
        if kind in ("service", "agent") and hold.workspace_id != DEFAULT_WORKSPACE:  # others' spending
            public = {name: public[name] for name in ("scope", "period", "renews_at")}
        else:
            detail += f": {public['left_usd']} dollars are left, and this call needs {usd(needed)}"
        error = BudgetExceeded(f"{detail}.", extra={"budget": public})
        error.needed = needed
        return error

    def _over_run(self, estimate: CallEstimate) -> BudgetExceeded:
        self._observer.budget_refused("run")
        left = usd((estimate.most or 0) // 1_000 * 1_000)
        budget = {"scope": "run", "period": "total", "amount_usd": usd(self._most_of(estimate.run) or 0)}
        return BudgetExceeded(
            "This run has spent what one run may.",
            extra={"budget": {**budget, "left_usd": left, "renews_at": None}},
        )


def sweep_holds(db: Database, spending: Spending, *, older_than: float, limit: int = 100) -> int:
    """Settle, at their worst, holds older than `older_than` seconds that their run has abandoned; return how many."""
    before = now_ms() - int(older_than * 1000)
    found = db.query(lambda tx: holds.orphaned(tx, before, limit))
    for hold in found:
        db.transact(spending.settle_worst(hold).work)
        log.warning(
            "abandoned_hold_settled", extra={"hold": hold.id, "run_id": hold.run_id, "held": hold.amount_nano}
        )
    return len(found)


def _fewest(estimate: CallEstimate, standing: Sequence[Standing]) -> int:
    """Return the tokens of the shortest answer to hold for: a whole one where its run waits until that fits the caps.

    A cap that is too small for it, or what one run may spend, shortens the answer of such a run too.
    """
    bounds = [state.cap.amount for state in standing] + ([] if estimate.most is None else [estimate.most])
    fits_some_day = estimate.worst(estimate.max_tokens) <= min(bounds, default=0)
    return estimate.max_tokens if estimate.waits and fits_some_day else estimate.fewest


def _seed(hold: Hold) -> int:
    return zlib.crc32(hold.run_id.encode())
