"""Proxy to a loopback server that delays answers, and counts trips."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class SlowWay:
    """Delaying proxy. `delay`: seconds per answer, in sequence per connection.

    `trips`: bursts of a client that were followed by an answer; several messages in one burst are one trip.
    """

    def __init__(self, target: int) -> None:
        self.delay = 0.0
        self.trips = 0
        self._asked: set[socket.socket] = set()  # sockets to clients that wait for an answer
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()

    @contextmanager
    def standing(self) -> Iterator[SlowWay]:
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
                far = socket.create_connection(("127.0.0.1", self._target), 5)
            except OSError:
                return
            far.settimeout(None)
            self._open |= {near, far}
            for source, sink, answers in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pass, args=(source, sink, answers), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, answers: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if not answers:
                    self._asked.add(source)
                elif sink in self._asked:
                    self._asked.discard(sink)
                    self.trips += 1
                if answers and self.delay:
                    time.sleep(self.delay)
                sink.sendall(data)
        self._end(source)
        self._end(sink)

    def _end(self, one: socket.socket) -> None:
        self._open.discard(one)
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
