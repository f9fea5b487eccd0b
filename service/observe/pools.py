"""Gauges of the pools of one process, set by a thread: a request pays nothing for them."""

from __future__ import annotations

import threading
from collections.abc import Callable

EACH = 2.0  # seconds
Read = Callable[[], tuple[int, int]]  # number in use, and the most of them


class Pools:
    """Pools whose figures are told to `told`, by name, every `EACH` seconds. One per process, made after the fork."""

    def __init__(self, told: Callable[[str, int, int], object], **pools: Read) -> None:
        self._told = told
        self._pools = dict(pools)
        self._closed = threading.Event()

    def add(self, name: str, read: Read) -> None:
        """Add a pool, before `start`."""
        self._pools[name] = read

    def start(self) -> None:
        self.tell()
        threading.Thread(target=self._loop, name="pools", daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def figures(self) -> dict[str, tuple[int, int]]:
        """Return the figures of each pool, by name."""
        return {name: read() for name, read in self._pools.items()}

    def tell(self) -> None:
        for name, figures in self.figures().items():
            self._told(name, *figures)

    def _loop(self) -> None:
        while not self._closed.wait(EACH):
            self.tell()
