"""Warnings of caps: each level that a window passes is recorded once and told once, however many workers notice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from service.errors import DatabaseUnavailable
from service.observe.observer import Observer
from service.store import budgets as rows
from service.store.budgets import BudgetWindow
from service.store.database import Database, Row, Transaction
from service.usage.caps import LEVELS, BudgetWarning, Cap, Standing, level, standing_of

log = logging.getLogger("slipway.money")
Notify = Callable[[Transaction, str, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class BudgetWarnings:
    """Watches counters, and warns.

    `notify` receives each warning once, as its id and public form, inside the transaction that records it, so its
    writes commit or roll back with the record.
    """

    db: Database
    observer: Observer
    notify: Notify

    def watch(self, counters: Iterable[Row]) -> None:
        """Warn of windows that passed a level, after the commit that changed these counters.

        A window passes a level only after one of its stripes has, so only that stripe's calls read the whole window.
        """
        for row in counters:
            if level(row["spent_nano"], row["cap_nano"]) > row["warned"]:
                self.warn(row["window_id"])

    def warn(self, window_id: str, *, refused: bool = False) -> None:
        """Warn of every level a window has passed, each once, however many workers notice.

        `refused`: a call no longer fits; from 80 percent on, the warning then is for 100 percent, as the remainder is
        useless. Never raises: without a database, the next call warns.
        """
        try:
            standing, warned = self.db.query(lambda tx: self._level(tx, window_id), patience=0)
            percent = level(standing.spent, standing.cap.amount)
            percent = 100 if refused and percent >= 80 else percent
            for passed in LEVELS:
                warning = BudgetWarning(passed, standing)
                if warned < passed <= percent and self._note(warning):
                    scope = standing.cap.scope.partition(":")[0]
                    self.observer.budget_warning(scope, passed, warning.public())
        except DatabaseUnavailable:
            log.warning("budget_warning_deferred", extra={"window": window_id})

    def _level(self, tx: Transaction, window_id: str) -> tuple[Standing, int]:
        scope, period, start = window_id.rsplit("/", 2)
        window = BudgetWindow(scope, period, int(start))
        counters = rows.stripes(tx, [window]).get(window_id, [])
        warned = min((row["warned"] for row in counters), default=100)  # no counters: nothing to warn of
        cap = Cap(scope, period, sum(row["cap_nano"] for row in counters))
        return standing_of(cap, window, counters), warned

    def _note(self, warning: BudgetWarning) -> bool:
        """Record a warning. False: it is recorded already; True where that was this same write, its answer lost."""
        noted = False

        def work(tx: Transaction) -> bool:
            nonlocal noted
            noted = rows.warn(tx, warning.standing.window.id, warning.percent) or noted
            if noted:
                self.notify(tx, warning.id, warning.public())
            return noted

        return self.db.transact(work)
