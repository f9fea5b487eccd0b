"""Places of a pool, such as connections: a semaphore that tells how many are taken."""

from __future__ import annotations

import threading


class Places:
    """`size` places, each of which one thread takes at a time."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.used = 0
        self._change = threading.Condition(threading.Lock())

    def acquire(self, timeout: float) -> bool:
        """Take a place; wait for one at most `timeout` seconds. False: there was none."""
        with self._change:
            if self.used >= self.size and not self._change.wait_for(self._is_free, timeout):
                return False
            self.used += 1
            return True

    def release(self) -> None:
        """Give a place back. Raises `ValueError` where none is taken."""
        with self._change:
            if not self.used:
                raise ValueError("more places were given back than taken")
            self.used -= 1
            self._change.notify()

    def _is_free(self) -> bool:
        return self.used < self.size
