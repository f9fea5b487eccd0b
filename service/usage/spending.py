"""Ask before spending: what a model call can cost at most is held against every cap, then settled to what it did cost.

A hold is written in the transaction that starts the step, a settlement in the one that keeps it. The common case
is one conditional update of the counters. Whatever needs more (a window nobody has opened, stripes to be drawn
together, a prompt to be counted, an answer to be made shorter) is done outside, and then the hold is tried again.
"""

from __future__ import annotations

import itertools
import logging
import time
import zlib
from collections.abc import Callable, Mapping
from functools import partial

from service.errors import BudgetExceeded
from service.observe.metrics import Metrics
from service.store import budgets as counters
from service.store import holds, ledger, scope_locks
from service.store.database import Database, Row, Transaction
from service.store.holds import Hold
from service.types import Run, Usage, UsageSource, new_id, now_ms, usd
from service.usage.budgets import Budgets
from service.usage.caps import Standing
from service.usage.prices import Price
from service.usage.reservation import CallEstimate, HoldAttempt, Reserved, Settlement, WriteInTransaction

log = logging.getLogger("slipway.money")
PATIENCE = 3.0  # seconds a call waits for money that calls under way may not need after all
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.25
LATEST_HOLD = 60_000  # ms from the making of a hold to its writing: one that waited for longer is made anew


class HoldRefused(Exception):
    """The hold does not fit the counters as they are, or not now: nothing of the transaction may stand."""


class Spending:
    """Holds and settlements. One per process; `run_most` is what one run may spend, in nano-dollars.

    `used` is told, once it is written down, what a user's call has used.
    """

    def __init__(
        self,
        db: Database,
        budgets: Budgets,
        metrics: Metrics,
        *,
        run_most: int | None = None,
        patience: float = PATIENCE,
        used: Callable[[str, Usage], None] | None = None,
    ) -> None:
        self._db = db
        self._budgets = budgets
        self._metrics = metrics
        self._run_most = run_most
        self._patience = patience
        self._used = used or (lambda user_id, usage: None)

    def left_of(self, run: Run) -> int | None:
        """What a run may still spend, in nano-dollars; None: as much as the caps allow."""
        return None if self._run_most is None else max(0, self._run_most - run.cost_nano)

    def reserve(
        self,
        wish: CallEstimate,
        write: Callable[[WriteInTransaction, WriteInTransaction], None],
        again: Callable[[], None],
    ) -> Reserved:
        """Hold what the call can cost; `write` commits a transaction with a lock and the hold in it.

        What it settles comes between the two: see "Locks" in docs/architecture.md.

        `again` is called before it is tried once more: it may end the wait by raising, and had better settle
        what is still owed. Raises `BudgetExceeded` when not even a short answer fits.
        """
        if wish.input_tokens is None:
            wish = wish.counted()
        end = time.monotonic() + self._patience
        pause = FIRST_PAUSE
        offer = HoldAttempt(wish, wish.max_tokens)
        for turn in itertools.count():
            hold = self._hold(offer)
            if wish.most is None or hold.amount_nano <= wish.most:
                try:
                    locks = partial(scope_locks.share, scopes=hold.scopes)
                    write(locks, partial(self._take, hold=hold, chosen=offer.counters))
                    return Reserved(hold, offer.tokens)
                except HoldRefused:
                    pass
            again()
            offer, fits = self._make_room(offer.wish, hold, waits=time.monotonic() < end)
            if not fits or turn > 3:  # others are quicker each time: not all at once
                time.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        raise AssertionError("one of the turns returns, or raises")

    def settle(self, hold: Hold, price: Price, usage: Usage, basis: str = "exact") -> Settlement:
        """To what was used, exactly or by estimate."""
        cost = price.cost(usage)
        prompt = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens
        plain = Usage(prompt, usage.output_tokens, server_tool_requests=usage.server_tool_requests)
        saved = 0 if plain == usage else price.cost(plain) - cost
        source: UsageSource = "reported" if basis == "exact" else "estimated"
        return Settlement(usage, cost, source, lambda tx: self._settle(tx, hold, usage, cost, saved, basis))

    def settle_unused(self, hold: Hold) -> Settlement:
        """The provider did no work for this call."""
        return Settlement(Usage(), 0, "reported", lambda tx: self._settle(tx, hold, Usage(), 0, 0, "nothing"))

    def settle_worst(self, hold: Hold) -> Settlement:
        """Nobody can say whether the provider charges for this call: then it does, and for all of it."""
        cost = hold.amount_nano
        return Settlement(
            Usage(), cost, "worst", lambda tx: self._settle(tx, hold, Usage(), cost, 0, "worst")
        )

    def left_open(self, run: Run) -> list[Settlement]:
        """Holds of earlier attempts at this run, whose workers died: what came of those calls nobody knows."""
        found = self._db.query(lambda tx: holds.of_run(tx, run.id))
        return [self.settle_worst(hold) for hold in found if hold.attempt < run.attempt]

    def _hold(self, offer: HoldAttempt) -> Hold:
        run, wish = offer.wish.run, offer.wish
        return Hold(
            id=new_id("hld"),
            run_id=run.id,
            attempt=run.attempt,
            step=wish.step,
            user_id=run.user_id,
            key_id=run.key_id,
            agent=run.agent,
            session_id=run.request.session_id,
            model=wish.model,
            price_id=wish.price.id,
            amount_nano=wish.worst(offer.tokens),
            called_at=now_ms(),
        )

    def _take(self, tx: Transaction, hold: Hold, chosen: Mapping[str, str]) -> None:
        """Hold against every cap, all or none. Raises `Short`."""
        windows = [cap.window(hold.called_at) for cap in self._budgets.caps(tx, hold.scopes)]
        ids = sorted(chosen.get(window.id) or self._budgets.stripe(window, _seed(hold)) for window in windows)
        if not holds.insert(tx, hold._replace(counters=tuple(ids))):
            return  # a commit whose answer was lost: it is held
        # Where they are not: what this transaction settles is written first, by itself.
        if not counters.in_order(tx, ids) or now_ms() - hold.called_at > LATEST_HOLD:
            raise HoldRefused
        taken = counters.take(tx, ids, hold.amount_nano)
        if len(taken) < len(ids):
            raise HoldRefused
        ledger.held(tx, hold, taken)

    def _settle(self, tx: Transaction, held: Hold, usage: Usage, cost: int, saved: int, basis: str) -> None:
        hold = holds.close(tx, held.run_id, held.id)
        if hold is None:
            return  # settled before: by this very work, by another worker, or by the sweep
        changed, rows = counters.settle(tx, sorted(hold.counters), hold.amount_nano, cost)
        ledger.settled(tx, hold, changed, ledger.SettledCall(usage, cost, saved, basis))
        self._budgets.watch(tx, rows)
        tx.after_commit(lambda: self._metrics.cost(hold.agent, hold.model, cost))
        tx.after_commit(lambda: self._metrics.prompt_cache(hold.agent, usage))
        tx.after_commit(lambda: self._used(hold.user_id, usage))
        if cost > hold.amount_nano:
            tx.after_commit(lambda: self._overrun(hold, cost))

    def _overrun(self, hold: Hold, cost: int) -> None:
        """Never yet seen: it would mean that a bound of ours does not hold."""
        self._metrics.hold_overrun()
        log.error(
            "hold_overrun",
            extra={"hold": hold.id, "model": hold.model, "held": hold.amount_nano, "cost": cost},
        )

    def _make_room(self, wish: CallEstimate, hold: Hold, *, waits: bool) -> tuple[HoldAttempt, bool]:
        """What to try next, and whether it fits now: else wait a little.

        Raises `BudgetExceeded` when nothing fits, and calls under way will not change that (or not in time).
        """
        standing, opened = self._db.query(lambda tx: self._look(tx, hold))
        if fresh := [state.cap for state in standing if state.window.id not in opened]:
            self._budgets.open(fresh, hold.called_at)
            return HoldAttempt(wish, wish.max_tokens), True
        limits = [state.left for state in standing] + ([] if wish.most is None else [wish.most])
        left = min(limits, default=hold.amount_nano)
        tokens = wish.affordable(left)
        if tokens < wish.max_tokens and wish.count is not None and wish.price.worst(0, wish.fewest) <= left:
            return HoldAttempt(wish.counted(), wish.max_tokens), True
        if tokens >= wish.fewest:
            amount, seed = wish.worst(tokens), _seed(hold)
            chosen = {
                state.window.id: self._budgets.with_room(state.window, opened[state.window.id], seed, amount)
                for state in standing
            }
            return HoldAttempt(wish, tokens, chosen), True
        needed = wish.worst(wish.fewest)
        if wish.most is not None and needed > wish.most:
            raise self._over_run(wish)
        if waits and all(state.spent + needed <= state.cap.amount for state in standing):
            return HoldAttempt(wish, wish.max_tokens), False
        raise self._over(min(standing, key=lambda state: state.left), needed)

    def _look(self, tx: Transaction, hold: Hold) -> tuple[list[Standing], dict[str, list[Row]]]:
        standing = self._budgets.standing(tx, self._budgets.caps(tx, hold.scopes), hold.called_at)
        return standing, counters.stripes(tx, [state.window for state in standing])

    def _over(self, state: Standing, needed: int) -> BudgetExceeded:
        scope = state.cap.scope
        self._metrics.budget_refused(scope.partition(":")[0])
        self._budgets.warn(state.window.id, refused=True)
        public = state.public()
        detail = f"The {state.cap.period}'s cap of {scope} is reached: {public['left_usd']} dollars are left"
        return BudgetExceeded(f"{detail}, and this call needs {usd(needed)}.", extra={"budget": public})

    def _over_run(self, wish: CallEstimate) -> BudgetExceeded:
        self._metrics.budget_refused("run")
        left = usd((wish.most or 0) // 1_000 * 1_000)
        budget = {"scope": "run", "period": "total", "amount_usd": usd(self._run_most or 0), "left_usd": left}
        return BudgetExceeded(
            "This run has spent what one run may.", extra={"budget": {**budget, "renews_at": None}}
        )


def sweep_holds(db: Database, spending: Spending, *, older_than: float, limit: int = 100) -> int:
    """Settle, at their worst, holds of so many seconds ago whose run has ended or goes on without them; how many."""
    before = now_ms() - int(older_than * 1000)
    found = db.query(lambda tx: holds.orphaned(tx, before, limit))
    for hold in found:
        db.transact(spending.settle_worst(hold).work)
        log.warning(
            "abandoned_hold_settled", extra={"hold": hold.id, "run_id": hold.run_id, "held": hold.amount_nano}
        )
    return len(found)


def _seed(hold: Hold) -> int:
    return zlib.crc32(hold.run_id.encode())
