"""Bounds on runs that wait for a worker or for money: of one user, and in all."""

from __future__ import annotations

import threading
import time
from collections import Counter

from service.errors import Overloaded, RateLimited
from service.store import task_line
from service.store.database import Database

UNBOUNDED = 2**53
COUNT_SECONDS = 5.0  # between two counts in the database


class QueueBounds:
    """Counts waiting runs, at most `of_user` of one user and `in_all`. One per process.

    Counted in the database every `COUNT_SECONDS` while runs are queued here; those that this process has queued since
    are added. So processes together may pass a bound by what they queue in that time.
    """

    def __init__(self, db: Database, of_user: int | None, in_all: int) -> None:
        self._db = db
        self._of_user = of_user or UNBOUNDED
        self._in_all = in_all
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()  # by user
        self._total = 0
        self._until = 0.0

    def take(self, user_id: str) -> None:
        """Count a run that is to be queued.

        Raises `RateLimited` at the user's bound, `Overloaded` at that of all, and `DatabaseUnavailable`.
        """
        with self._lock:
            if time.monotonic() >= self._until:
                self._counts = Counter(self._db.query(task_line.waiting_by_user, patience=1))
                self._total, self._until = self._counts.total(), time.monotonic() + COUNT_SECONDS
            if self._counts[user_id] >= self._of_user:
                raise RateLimited(
                    f"You have {self._of_user} runs waiting, the most of one user.", retry_after=COUNT_SECONDS
                )
            if self._total >= self._in_all:
                raise Overloaded("As many runs are waiting as there may be.", retry_after=COUNT_SECONDS)
            self._counts[user_id] += 1
            self._total += 1
