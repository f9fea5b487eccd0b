"""Savings by answers that no model was asked for: counted in memory, written by the sweep.

A cached answer touches no database, and is served while that is away. So each process counts its own, and adds them to
the sums of usage reports every few seconds; one that is killed loses those. They are no money: caps and ledger do not
depend on them.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from service.errors import DatabaseUnavailable
from service.store import savings
from service.store.database import Database
from service.store.savings import Key
from service.store.schema import SAVED
from service.types import Run, now_ms

log = logging.getLogger("slipway.savings")
MAX_KEYS = (
    10_000  # in memory, while the database is away: answers of other users, agents and hours are not counted
)
BATCH = 500  # keys of one transaction
_PLACES = {"hit": 0, "near": 1, "coalesced": 2}  # in `SAVED`: of the count; of the amount, three further
_AMOUNT = 3


class Savings:
    """Count of saved calls. One per process; thread-safe. `told`: agent, cache result and nano-dollars of each."""

    def __init__(self, db: Database, told: Callable[[str, str, int], object] = lambda *about: None) -> None:
        self._db = db
        self._told = told
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._sums: dict[Key, list[int]] = {}
        self._full = False

    def add(self, run: Run, model: str, saved: int) -> None:
        """Count a run that was answered without a call. `saved`: nano-dollars that the answer had cost."""
        place = _PLACES.get(run.cache)
        if place is None:
            return
        self._told(run.agent, run.cache, saved)
        hour, end_user = now_ms() // 3_600_000, run.request.end_user or ""
        key = (hour, run.user_id, run.key_id or "", end_user, run.agent, model)
        with self._lock:
            sums = self._sums.get(key)
            if sums is None:
                if len(self._sums) >= MAX_KEYS:
                    self._full = True
                    return
                sums = self._sums[key] = [0] * len(SAVED)
            sums[place] += 1
            sums[place + _AMOUNT] += saved

    def write(self) -> None:
        """Write what was counted. Raises `DatabaseUnavailable`: then it stays for the next time."""
        with self._writing:
            while taken := self._take():
                try:
                    self._db.transact(partial(savings.add, found=taken), patience=1)
                except DatabaseUnavailable:
                    self._give_back(taken)
                    raise

    def close(self) -> None:
        with suppress(DatabaseUnavailable):
            self.write()

    def _take(self) -> dict[Key, list[int]]:
        with self._lock:
            if self._full:
                self._full = False
                log.warning("savings_not_counted", extra={"keys": len(self._sums)})
            keys = list(self._sums)[:BATCH]
            return {key: self._sums.pop(key) for key in keys}

    def _give_back(self, taken: dict[Key, list[int]]) -> None:
        with self._lock:
            for key, sums in taken.items():
                since = self._sums.get(key, [0] * len(SAVED))
                self._sums[key] = [a + b for a, b in zip(sums, since, strict=True)]
