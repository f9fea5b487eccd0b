"""Bytes in flight: bounds the large content that one process holds in memory at once."""

from __future__ import annotations

import threading
from collections import Counter

from service.errors import Overloaded


class BytesInFlight:
    """At most `total` bytes at once, half of them for one user; a single content that is larger passes alone."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._change = threading.Condition()
        self._by_user: Counter[str] = Counter()

    @property
    def taken(self) -> int:
        return self._by_user.total()

    def take(self, user_id: str, size: int, wait: float = 0.0) -> HeldBytes:
        """Take room for content, within `wait` seconds. Raises `Overloaded` where there is none."""
        with self._change:
            if not self._change.wait_for(lambda: self._fits(user_id, size), wait):
                raise Overloaded(
                    "This worker holds as many images and documents as it may; try again shortly.",
                    retry_after=2,
                )
            self._by_user[user_id] += size
        return HeldBytes(self, user_id, size)

    def give(self, user_id: str, size: int) -> None:
        """Release room. Called by `HeldBytes.give`."""
        with self._change:
            self._by_user[user_id] -= size
            if not self._by_user[user_id]:
                del self._by_user[user_id]
            self._change.notify_all()

    def _fits(self, user_id: str, size: int) -> bool:
        mine = self._by_user.get(user_id, 0)
        return (not mine or mine + size <= self._total // 2) and (
            not self.taken or self.taken + size <= self._total
        )


class HeldBytes:
    """Room that was taken. As a context manager, it is released at the end of the block."""

    def __init__(self, room: BytesInFlight, user_id: str, size: int) -> None:
        self._room: BytesInFlight | None = room
        self._user_id = user_id
        self._size = size

    def give(self) -> None:
        """Release the room. Idempotent."""
        room, self._room = self._room, None
        if room is not None:
            room.give(self._user_id, self._size)

    def __enter__(self) -> HeldBytes:
        return self

    def __exit__(self, *_: object) -> None:
        self.give()
