"""Delaying TCP proxy between a service and its Redis and PostgreSQL, and the count of trips on that wire.

`python -m benchmarks.proxy --control PORT redis=LISTEN:TARGET postgres=LISTEN:TARGET`, ports on loopback. Questions
pass at once, answers after the delay, in order. A trip is a burst from the client that an answer follows: a pipeline is
one, and what is sent before the answer to the last burst has arrived belongs to the same trip.

One thread over epoll: the delay is the same for all, so answers wait in one queue. asyncio rounds waits up to whole
milliseconds, and carries less. It ends with the process that started it.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.processes import await_true, free_port, process

PIECE = 1 << 18  # bytes read at once
IDLE = 0.5  # seconds until the parent is looked for again
RECORDED = 100_000  # bursts that are kept at most


@dataclass(eq=False, slots=True)
class Link:
    """One connection through the proxy. `asked`: the client has sent something since the last answer it got."""

    part: str
    number: int
    client: socket.socket
    server: socket.socket
    asked: bool = False
    unsent: dict[socket.socket, bytearray] = field(default_factory=dict)


class Relay:
    """Event loop of the proxy. `trips` counts by part; `record` keeps bursts.

    A burst is (seconds, part, number of the connection, whether it begins a trip, bytes as Latin-1).
    """

    def __init__(self) -> None:
        self.delay = 0.0
        self.trips: dict[str, int] = {}
        self.recording = False
        self.record: deque[tuple[float, str, int, bool, str]] = deque(maxlen=RECORDED)
        self._poll = select.epoll()
        self._listeners: dict[int, tuple[socket.socket, str, int]] = {}
        self._links: dict[int, Link] = {}
        self._waiting: deque[tuple[float, Link, bytes]] = deque()  # empty bytes: the server has hung up
        self._opened = 0

    def listen(self, part: str, port: int, target: int = 0) -> None:
        """Open a port for a part; `target` 0 is the proxy's own control."""
        listener = socket.create_server(("127.0.0.1", port), backlog=1024)
        self._listeners[listener.fileno()] = (listener, part, target)
        self._poll.register(listener, select.EPOLLIN)
        if target:
            self.trips[part] = 0

    def run(self, parent: int) -> None:
        while os.getppid() == parent:
            self.turn()

    def turn(self) -> None:
        """Wait for sockets or the next answer that is due, then serve both."""
        if self._waiting:  # epoll waits for whole milliseconds, select does not
            select.select([self._poll], [], [], max(0.0, self._waiting[0][0] - time.monotonic()))
        for number, mask in self._poll.poll(0 if self._waiting else IDLE):
            if number in self._listeners:
                self._accept(*self._listeners[number])
            elif link := self._links.get(number):
                self._serve(link, number, mask)
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, link, data = self._waiting.popleft()
            self._answer(link, data)

    def _accept(self, listener: socket.socket, part: str, target: int) -> None:
        client, _ = listener.accept()
        if not target:
            self._control(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", target), 5)
        except OSError:
            client.close()
            return
        self._opened += 1
        link = Link(part, self._opened, client, server)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end.setblocking(False)
            self._links[end.fileno()] = link
            self._poll.register(end, select.EPOLLIN)

    def _serve(self, link: Link, number: int, mask: int) -> None:
        end, other = link.client, link.server
        if number == link.server.fileno():
            end, other = other, end
        if mask & select.EPOLLOUT:
            self._send(link, end, b"")
        if not mask & ~select.EPOLLOUT:
            return
        try:
            data = end.recv(PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if end is link.client:
            self._ask(link, data)
        else:
            if not data:
                self._poll.unregister(end)  # until the answers before it have gone out
            self._waiting.append((time.monotonic() + self.delay, link, data))

    def _ask(self, link: Link, data: bytes) -> None:
        if not data:
            self._close(link)
            return
        if self.recording:
            burst = data.decode("latin-1")
            self.record.append((time.monotonic(), link.part, link.number, not link.asked, burst))
        link.asked = True
        self._send(link, link.server, data)

    def _answer(self, link: Link, data: bytes) -> None:
        if link.client.fileno() < 0:  # gone meanwhile
            return
        if not data:
            self._close(link)
            return
        if link.asked:
            link.asked = False
            self.trips[link.part] += 1
        self._send(link, link.client, data)

    def _send(self, link: Link, end: socket.socket, data: bytes) -> None:
        """Send `data` after what is still unsent; the rest goes when there is room."""
        before = link.unsent.pop(end, None)
        if before is not None:
            before += data
            data = bytes(before)
        try:
            sent = end.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._close(link)
            return
        if sent < len(data):
            link.unsent[end] = bytearray(data[sent:])
        if before is not None or sent < len(data):
            room = select.EPOLLOUT if end in link.unsent else 0
            with suppress(OSError):  # it has hung up, and is only written to
                self._poll.modify(end, select.EPOLLIN | room)

    def _close(self, link: Link) -> None:
        for end in (link.client, link.server):
            self._links.pop(end.fileno(), None)
            end.close()  # which unregisters it

    def _control(self, client: socket.socket) -> None:
        """Take one line of JSON, such as `{"delay_ms": 1, "record": true}`; answer with the counts so far."""
        with client, suppress(OSError, ValueError):
            client.settimeout(1)
            asked = json.loads(client.makefile("rb").readline())
            self.delay = asked.get("delay_ms", self.delay * 1000) / 1000
            self.recording = asked.get("record", self.recording)
            told: dict[str, Any] = {"trips": self.trips}
            if "record" in asked:
                told["record"] = list(self.record)
                self.record.clear()
            client.sendall(json.dumps(told).encode())


@dataclass
class Proxy:
    """A proxy that runs: a port for each part, and its control."""

    pid: int
    ports: Mapping[str, int]
    control: int

    def tell(self, **wish: Any) -> dict[str, Any]:
        """Change the delay or the recording; return the counts so far, and for `record` what was recorded before."""
        with socket.create_connection(("127.0.0.1", self.control), 10) as client:
            client.sendall(json.dumps(wish).encode() + b"\n")
            return dict(json.loads(client.makefile("rb").read()))

    def trips(self) -> dict[str, int]:
        return dict(self.tell()["trips"])


@contextmanager
def proxied(folder: Path, targets: Mapping[str, int], delay_ms: float = 0) -> Iterator[Proxy]:
    """Start a proxy before these ports, by part."""
    control, ports = free_port(), {part: free_port() for part in targets}
    ways = [f"{part}={ports[part]}:{target}" for part, target in targets.items()]
    command = [sys.executable, "-m", "benchmarks.proxy", "--control", str(control), *ways]
    log = folder / "proxy.log"
    with ExitStack() as stack:
        child = stack.enter_context(process(command, log))
        proxy = Proxy(child.pid, ports, control)

        def ready() -> bool:
            with suppress(OSError, ValueError):
                return bool(proxy.tell(delay_ms=delay_ms))
            return False

        await_true(ready, child, "the proxy", log)
        yield proxy


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description=__doc__)
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("ways", nargs="+")
    asked = parser.parse_args()
    relay = Relay()
    relay.listen("control", asked.control)
    for way in asked.ways:
        part, _, ports = way.partition("=")
        port, _, target = ports.partition(":")
        relay.listen(part, int(port), int(target))
    relay.run(os.getppid())


if __name__ == "__main__":
    main()
