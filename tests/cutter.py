"""Proxy to a loopback server that cuts a connection after a number of bytes, as an unkind network does."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

from tests.loopback_proxy import LoopbackProxy, Way


class Cutter(LoopbackProxy):
    """Proxy that cuts connections; `cuts` counts them."""

    def __init__(self, target: int | str) -> None:
        super().__init__(target)
        self.cuts = 0
        self.passed: dict[Way, int] = {"asked": 0, "answered": 0}  # bytes since `watch` or `cut_after`
        self._left: tuple[Way, int] | None = None
        self._lock = threading.Lock()

    def watch(self) -> None:
        """Count bytes from now on."""
        self._left, self.passed = None, {"asked": 0, "answered": 0}

    def cut_after(self, way: Way, count: int) -> None:
        """Cut the connection that brings so many more bytes this way, both ways, once these are passed on."""
        self.watch()
        self._left = (way, count)

    def _pass(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                allowed = self._allowed(way, len(data))
                sink.sendall(data[:allowed])
                if allowed is not None:
                    break
        self._end(source)
        self._end(sink)

    def _allowed(self, way: Way, size: int) -> int | None:
        """Return how many of these bytes still pass before the cut; None: all, and there is no cut."""
        with self._lock:
            self.passed[way] += size
            if self._left is None or self._left[0] != way:
                return None
            left = self._left[1]
            if size < left:
                self._left = (way, left - size)
                return None
            self._left = None
            self.cuts += 1
            return left
