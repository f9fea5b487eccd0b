"""Ids: prefixed, unpredictable, sortable by time."""

from __future__ import annotations

import os
import threading
from base64 import b32encode

from service.types import now_ms

_CROCKFORD = bytes.maketrans(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", b"0123456789abcdefghjkmnpqrstvwxyz")


class _Sequence:
    """Monotonic random parts of ids: unpredictable, increasing within a millisecond of one process."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._lock = threading.Lock()
        self._ms = self._random = 0

    def next(self) -> tuple[int, bytes]:
        """Return the present time (ms) and 80 random bits, larger than those before in the same millisecond."""
        with self._lock:
            now = now_ms()
            fresh = now != self._ms
            step = int.from_bytes(os.urandom(10 if fresh else 5), "big")
            # The highest bit leaves room for increments within the millisecond.
            self._ms, self._random = now, step >> 1 if fresh else self._random + 1 + step
            return now, self._random.to_bytes(10, "big")


_sequence = _Sequence()
os.register_at_fork(after_in_child=_sequence.begin)  # else parent and child would make the same ids


def new_id(prefix: str) -> str:
    """Create an id, ULID-like: `prefix_` and 26 characters of 48 bits of milliseconds and 80 random bits.

    Ids sort by time; those of one process in creation order, within a millisecond too.
    """
    return _id(prefix, *_sequence.next())


def first_id(prefix: str, ms: int) -> str:
    """Return the smallest id of a moment, as a bound for range queries."""
    return _id(prefix, ms, bytes(10))


def _id(prefix: str, ms: int, rest: bytes) -> str:
    letters = b32encode(ms.to_bytes(10, "big") + rest).translate(_CROCKFORD).decode()
    return f"{prefix}_{letters[6:]}"  # the first 6 of 32 are padding
