"""Bound on the connections in use, and one reconnection at a time while the database is away.

SQLAlchemy's pool bounds them too. But who waits in it is woken only by a connection that comes back: not by an attempt
to connect that fails, and not when the pool is replaced, so after a failover they waited for nothing until their time
was up. And each of them made attempts of its own. Here one thread of the process tries to connect, and all the others
wait for what comes of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.errors import DatabaseUnavailable
from service.store.outages import Unfit

AWAY = "The database cannot be reached at the moment."
FIRST_PAUSE, LONGEST_PAUSE = 0.02, 0.5  # seconds between two attempts to connect


class Connections:
    """One per process, made after the fork. `most` transactions at once; others wait `seconds` for one to end.

    `connect` makes a connection of its own and closes it, or raises; `idle` counts connections of the pool that are
    free: those are used also while no new one can be made, as where the server takes no more.
    """

    def __init__(
        self, most: int, seconds: float, connect: Callable[[], object], idle: Callable[[], int]
    ) -> None:
        self._free = most
        self._ahead = 0  # threads that wait and are to have the next slot
        self._seconds = seconds
        self._connect = connect
        self._idle = idle
        self._away = False
        self._change = threading.Condition()
        self._closed = threading.Event()

    @contextmanager
    def slot(self, *, ahead: bool) -> Iterator[None]:
        """Room for one transaction; `ahead` of all others. Raises `DatabaseUnavailable` at once while there is no way
        to the database, and `Unfit` where no room was to be had in time."""
        with self._change:
            self._ahead += ahead
            try:
                found = self._change.wait_for(lambda: self._goes_on(ahead), self._seconds)
            finally:
                self._ahead -= ahead
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
                self._change.notify_all() if self._ahead else self._change.notify()

    def wait_until_back(self, end: float) -> bool:
        """Wait until there is a way to the database, until `end` of time.monotonic() at most."""
        with self._change:
            return self._change.wait_for(self._reachable, max(0.0, end - time.monotonic()))

    def lost(self) -> None:
        """Reconnect in the background, if nobody is at it: a connection could not be made, or all were let go of."""
        with self._change:
            if self._away or self._closed.is_set():
                return
            self._away = True
            self._change.notify_all()
        threading.Thread(target=self._reconnect, name="database-reconnect", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _goes_on(self, ahead: bool) -> bool:
        return self._free > (0 if ahead else self._ahead) or not self._reachable()

    def _reachable(self) -> bool:
        return not self._away or self._idle() > 0

    def _reconnect(self) -> None:
        pause = FIRST_PAUSE
        while not self._closed.wait(pause):
            pause = min(pause * 2, LONGEST_PAUSE)
            try:
                self._connect()
            except Exception:  # told by `connect`; whatever it is, the next attempt may succeed
                continue
            with self._change:
                self._away = False
                self._change.notify_all()
            return
