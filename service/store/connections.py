"""Bound on connections in use, and one reconnect loop per process while the database is away.

SQLAlchemy's pool has a bound too, but wakes its waiters only for a connection that is returned: not after a failed
connect, and not when the pool is replaced. After a failover they waited until their time-out, and each then tried to
connect by itself. Here one thread reconnects with back-off, and all others wait for its result.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import DatabaseUnavailable
from service.store.outages import Unfit

AWAY = "The database cannot be reached at the moment."
FIRST_PAUSE, MAX_PAUSE = 0.02, 0.5  # seconds of back-off between attempts to connect


class Connections:
    """Semaphore of one process, made after fork: `most` transactions at once; others wait up to `seconds`.

    `connect` tests the way to the database: connects and closes, or raises. `idle` counts free connections of the pool:
    these are used also while no new one can be made, as where the server has reached its limit.
    """

    def __init__(
        self, most: int, seconds: float, connect: Callable[[], object], idle: Callable[[], int]
    ) -> None:
        self.most = most
        self._free = most
        self._priority_waiters = 0  # threads
        self._seconds = seconds
        self._connect = connect
        self._idle = idle
        self._away = False
        self._change = threading.Condition()
        self._closed = threading.Event()

    @property
    def used(self) -> int:
        """Number of transactions under way."""
        return self.most - self._free

    @contextmanager
    def slot(self, *, priority: bool) -> Iterator[None]:
        """Hold a slot for one transaction; with `priority` before all others that wait.

        Raises `DatabaseUnavailable` at once while the database is away, and `Unfit` on time-out.
        """
        with self._change:
            self._priority_waiters += priority
            try:
                found = self._change.wait_for(lambda: self._may_proceed(priority), self._seconds)
            finally:
                self._priority_waiters -= priority
            if not found:
                raise Unfit("all connections of this process are in use")
            if not self._reachable():
                raise DatabaseUnavailable(AWAY)
            self._free -= 1
        try:
            yield
        finally:
            with self._change:
                self._free += 1
                self._change.notify_all() if self._priority_waiters else self._change.notify()

    def wait_until_back(self, deadline: float) -> bool:
        """Wait until the database is reachable. False: not by `deadline` (time.monotonic())."""
        with self._change:
            return self._change.wait_for(self._reachable, max(0.0, deadline - time.monotonic()))

    def lost(self) -> None:
        """Start the reconnect thread unless one runs: connecting failed, or the pool was discarded."""
        with self._change:
            if self._away or self._closed.is_set():
                return
            self._away = True
            self._change.notify_all()
        try:
            threading.Thread(target=self._reconnect, name="database-reconnect", daemon=True).start()
        except RuntimeError:  # the system's limit of threads is reached; the next failure tries again
            self._resume()

    def close(self) -> None:
        self._closed.set()

    def _may_proceed(self, priority: bool) -> bool:
        return self._free > (0 if priority else self._priority_waiters) or not self._reachable()

    def _reachable(self) -> bool:
        return not self._away or self._idle() > 0

    def _reconnect(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed.wait(pause):
            pause = min(pause * 2, MAX_PAUSE)
            try:
                self._connect()
            except Exception:  # logged by `connect`; the next attempt may succeed
                continue
            self._resume()
            return

    def _resume(self) -> None:
        """Let transactions connect again."""
        with self._change:
            self._away = False
            self._change.notify_all()
