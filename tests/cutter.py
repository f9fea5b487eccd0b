"""Proxy to a loopback server that cuts a connection after a number of bytes, as an unkind network does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Way = Literal["asked", "answered"]


class Cutter:
    """Proxy to `target`, a TCP port or the path of a Unix socket; `cuts` counts what it has cut."""

    def __init__(self, target: int | str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.cuts = 0
        self.passed: dict[Way, int] = {"asked": 0, "answered": 0}  # bytes since `watch` or `cut_after`
        self._left: tuple[Way, int] | None = None
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()

    def watch(self) -> None:
        """Count bytes from now on."""
        self._left, self.passed = None, {"asked": 0, "answered": 0}

    def cut_after(self, way: Way, count: int) -> None:
        """Cut the connection that brings so many more bytes this way, both ways, once these are passed on."""
        self.watch()
        self._left = (way, count)

    @contextmanager
    def standing(self) -> Iterator[Cutter]:
        thread = threading.Thread(target=self._accept)
        thread.start()
        try:
            yield self
        finally:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            self._listener.close()
            for one in list(self._open):
                self._end(one)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            kind = socket.AF_UNIX if isinstance(self._target, str) else socket.AF_INET
            far = socket.socket(kind)
            try:
                far.connect(self._target if isinstance(self._target, str) else ("127.0.0.1", self._target))
            except OSError:
                self._end(near)
                self._end(far)
                continue
            self._open |= {near, far}
            for source, sink, way in ((near, far, "asked"), (far, near, "answered")):
                threading.Thread(target=self._pass, args=(source, sink, way), daemon=True).start()

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

    def _end(self, one: socket.socket) -> None:
        self._open.discard(one)
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
