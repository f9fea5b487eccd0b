"""Loopback proxy of the tests: passes bytes on both ways until its block ends."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal, Self

Way = Literal["asked", "answered"]


class LoopbackProxy:
    """Proxy to `target`, a TCP port or the path of a Unix socket. Subclasses pass bytes on their own way."""

    def __init__(self, target: int | str) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()

    @contextmanager
    def standing(self) -> Iterator[Self]:
        thread = threading.Thread(target=self._accept)
        thread.start()
        try:
            yield self
        finally:
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            thread.join(60)
            self._listener.close()
            for one in list(self._open):
                self._end(one)

    def turn_to(self, target: int | str) -> None:
        """Connect to another server from now on."""
        self._target = target

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
        """Pass bytes on until either end closes, then close both."""
        raise NotImplementedError

    def _end(self, one: socket.socket) -> None:
        self._open.discard(one)
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
