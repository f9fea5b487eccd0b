"""Bulkhead: bounds the requests of one process that hold a thread for as long as a run may take.

Such a request executes a run, waits for another's answer, or follows a run's events. Threads beyond the places stay
free for log-ins, cache hits and health checks, however many clients follow, wait or stop reading.
"""

from __future__ import annotations

import threading
from collections import Counter

from service.errors import Overloaded, RateLimited


class Permit:
    """Place that was taken. As a context manager, it is released at the end of the block."""

    def __init__(self, bulkhead: Bulkhead, user_id: str, reads: bool) -> None:
        self._bulkhead: Bulkhead | None = bulkhead
        self._user_id = user_id
        self._reads = reads

    def give(self) -> None:
        """Release the place. Idempotent."""
        bulkhead, self._bulkhead = self._bulkhead, None
        if bulkhead is not None:
            bulkhead.give(self._user_id, self._reads)

    def __enter__(self) -> Permit:
        return self

    def __exit__(self, *_: object) -> None:
        self.give()


class Bulkhead:
    """`total` places in this process, at most `each` per user. Readers of runs may have half of them.

    `what` names the holders of places, for the caller.
    """

    def __init__(self, total: int, each: int, what: str = "requests of yours run, wait or follow") -> None:
        self.total = total
        self._each = each
        self._what = what
        self._most_readers = max(1, total // 2)
        self._lock = threading.Lock()
        self._by_user: Counter[str] = Counter()
        self._readers = 0

    @property
    def taken(self) -> int:
        return self._by_user.total()

    def take(self, user_id: str, *, reads: bool = False) -> Permit:
        """Take a place; `reads`: only to follow a run. Raises `Overloaded`, or `RateLimited` at the user's bound."""
        with self._lock:
            if self._by_user[user_id] >= self._each:
                raise RateLimited(f"More than {self._each} {self._what} at once.", retry_after=1)
            if self.taken >= self.total or (reads and self._readers >= self._most_readers):
                raise Overloaded("Every place of this worker is taken; try again shortly.", retry_after=1)
            self._by_user[user_id] += 1
            self._readers += reads
        return Permit(self, user_id, reads)

    def give(self, user_id: str, reads: bool) -> None:
        """Release a place. Called by `Permit.give`."""
        with self._lock:
            self._by_user[user_id] -= 1
            self._readers -= reads
            if not self._by_user[user_id]:
                del self._by_user[user_id]
