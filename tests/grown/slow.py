"""Proxy to a loopback server that delays answers, and counts trips."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from tests.loopback_proxy import LoopbackProxy, Way


class SlowWay(LoopbackProxy):
    """Delaying proxy. `delay`: seconds per answer, in sequence per connection.

    `trips`: bursts of a client that were followed by an answer; several messages in one burst are one trip.
    """

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self.delay = 0.0
        self.trips = 0
        self._asked: set[socket.socket] = set()  # sockets to clients that wait for an answer

    def _pass(self, source: socket.socket, sink: socket.socket, way: Way) -> None:
        answers = way == "answered"
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
