"""Name look-up (DNS) with a time-out: `getaddrinfo` has none, and a resolver that falls silent would hold its caller.

Each look-up runs in a thread of its own. One that hangs keeps that thread until the C library gives up, so there are
only so many, and whoever asks for the same name waits for the look-up under way.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

THREADS = 4  # look-ups at once
KEEP_SECONDS = 10.0  # a result is used again for so long
KEEP_NAMES = 256
SLICE = 0.05  # seconds between two looks at whether the caller still wants to know

SocketAddress = tuple[int, tuple[Any, ...]]  # the family, and what `socket.connect` takes


class Resolver:
    """Resolver of host names, safe for threads.

    One per process and use: names that users give cannot crowd out the model's.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._lock = threading.Lock()
        self._free = threads
        self._known: dict[tuple[str, int], _LookUp] = {}

    def addresses(
        self, host: str, port: int, wait: float, stopped: Callable[[], bool] = lambda: False
    ) -> list[SocketAddress]:
        """Look up every address of a host, in the resolver's order.

        Raises `TimeoutError` after `wait` seconds, or early once `stopped()`, and `socket.gaierror`.
        """
        if (literal := _literal(host, port)) is not None:
            return [literal]
        end = time.monotonic() + wait
        look_up = self._look_up(host, port)
        while look_up is None or not look_up.done.is_set():
            left = end - time.monotonic()
            if left <= 0 or stopped():
                raise TimeoutError("The name was not looked up in time")
            if look_up is not None:
                look_up.done.wait(min(left, SLICE))
            else:
                time.sleep(min(left, SLICE))
                look_up = self._look_up(host, port)
        if look_up.error is not None:
            raise look_up.error
        return look_up.addresses

    def _look_up(self, host: str, port: int) -> _LookUp | None:
        """Find the look-up under way or known still, or start one; None while every thread is taken."""
        with self._lock:
            found = self._known.get((host, port))
            if found is not None and found.good:
                return found
            if self._free <= 0:
                return None
            self._free -= 1
            if len(self._known) >= KEEP_NAMES:
                self._known = {key: known for key, known in self._known.items() if not known.done.is_set()}
            look_up = self._known[host, port] = _LookUp(host, port)
        threading.Thread(target=self._run, args=(look_up,), name="dns", daemon=True).start()
        return look_up

    def _run(self, look_up: _LookUp) -> None:
        try:
            look_up.run()
        finally:
            with self._lock:
                self._free += 1


class _LookUp:
    def __init__(self, host: str, port: int) -> None:
        self._name = (host, port)
        self._until = 0.0
        self.done = threading.Event()
        self.addresses: list[SocketAddress] = []
        self.error: OSError | None = None

    @property
    def good(self) -> bool:
        """Tell whether it is under way, or its result new enough. A failure is not kept for those who come later."""
        return not self.done.is_set() or time.monotonic() < self._until

    def run(self) -> None:
        try:
            found = socket.getaddrinfo(*self._name, type=socket.SOCK_STREAM)
            self.addresses = list(dict.fromkeys((int(entry[0]), tuple(entry[4])) for entry in found))
            self._until = time.monotonic() + KEEP_SECONDS
        except OSError as error:
            self.error = error
        except UnicodeError:
            self.error = socket.gaierror(socket.EAI_NONAME, "not a host name")
        finally:
            self.done.set()


def _literal(host: str, port: int) -> SocketAddress | None:
    """Parse an IP address, which needs no look-up."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return socket.AF_INET, (host, port)
    return None if ip.scope_id else (socket.AF_INET6, (host, port, 0, 0))
