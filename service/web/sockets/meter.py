"""Meter of what a client sends: a token bucket."""

from __future__ import annotations

import time


class Meter:
    """Token bucket of `burst`, refilled at `rate` per second; of one thread."""

    def __init__(self, burst: int, rate: float) -> None:
        self._burst, self._rate = burst, rate
        self._left = float(burst)
        self._at = time.monotonic()

    def passes(self) -> bool:
        """Take one, if there is one left."""
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
