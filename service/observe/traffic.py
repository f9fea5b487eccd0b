"""Requests of one process in the last minute: how many, how many failed, and how long they took."""

from __future__ import annotations

import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence

from service.observe.metric_kinds import BUCKETS

BOUNDS = BUCKETS["request"]  # upper bounds of the times in seconds; beyond the last there is one more
PIECE, PIECES = 10, 6  # seconds; of the minute
WIDTH = 2 + len(BOUNDS) + 1  # requests, failed ones, and requests by time


class Traffic:
    """Counts of the last minute, in pieces. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pieces: deque[tuple[int, list[int]]] = deque([(0, [0] * WIDTH)], maxlen=PIECES)

    def note(self, status: int, seconds: float) -> None:
        """Count a request; it has failed with a status from 500 on."""
        piece = int(time.monotonic()) // PIECE
        with self._lock:
            if self._pieces[-1][0] != piece:
                self._pieces.append((piece, [0] * WIDTH))
            counts = self._pieces[-1][1]
            counts[0] += 1
            counts[1] += status >= 500
            counts[2 + bisect_left(BOUNDS, seconds)] += 1

    def last_minute(self) -> list[int]:
        """Return the sums of the last minute, the current piece included."""
        oldest = int(time.monotonic()) // PIECE - PIECES
        with self._lock:
            recent = [counts for piece, counts in self._pieces if piece > oldest]
            return [sum(column) for column in zip(*recent, strict=True)] or [0] * WIDTH


def quantile(counts: Sequence[int], share: float) -> float | None:
    """Return the upper bound in seconds of the time within which a share of the requests was answered.

    None without requests, and for times beyond the last bound.
    """
    by_time, rank = counts[2:], share * counts[0]
    passed = 0
    for bound, count in zip(BOUNDS, by_time, strict=False):
        passed += count
        if passed and passed >= rank:
            return bound
    return None
