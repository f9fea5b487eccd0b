"""DNS resolver with a time-out: `getaddrinfo` has none, and a silent name server would block its caller.

Each look-up runs in a thread of its own. A hanging one keeps its thread until the C library gives up, so their number
is bounded, and callers for the same name share one look-up.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

THREADS = 4  # concurrent look-ups
KEEP_SECONDS = 10.0  # lifetime of a cached result
KEEP_NAMES = 256  # names in the cache
POLL_SECONDS = 0.05  # between two calls of `stopped`

SocketAddress = tuple[int, tuple[Any, ...]]  # the family, and what `socket.connect` takes


class Resolver:
    """Thread-safe resolver of host names.

    One per process and use: users' names cannot crowd out the model's.
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._lock = threading.Lock()
        self._free = threads
        self._cache: dict[tuple[str, int], _LookUp] = {}

    def addresses(
        self, host: str, port: int, wait: float, stopped: Callable[[], bool] = lambda: False
    ) -> list[SocketAddress]:
        """Look up all addresses of a host, in the resolver's order.

        Raises `TimeoutError` after `wait` seconds, or early once `stopped()`, and `socket.gaierror`.
        """
        if (literal := _literal(host, port)) is not None:
            return [literal]
        deadline = time.monotonic() + wait
        look_up = self._look_up(host, port)
        while look_up is None or not look_up.done.is_set():
            seconds = min(deadline - time.monotonic(), POLL_SECONDS)
            if seconds <= 0 or stopped():
                raise TimeoutError("The name was not looked up in time")
            if look_up is not None:
                look_up.done.wait(seconds)
            else:
                time.sleep(seconds)
                look_up = self._look_up(host, port)
        if look_up.error is not None:
            raise look_up.error
        return look_up.addresses

    def _look_up(self, host: str, port: int) -> _LookUp | None:
        """Find a running or cached look-up, or start one; None while all threads are busy."""
        with self._lock:
            found = self._cache.get((host, port))
            if found is not None and found.is_valid:
                return found
            if self._free <= 0:
                return None
            look_up = _LookUp(host, port)
            threading.Thread(target=self._run, args=(look_up,), name="dns", daemon=True).start()
            self._free -= 1  # after the start, which fails at the system's limit of threads
            if len(self._cache) >= KEEP_NAMES:
                self._cache = {key: entry for key, entry in self._cache.items() if not entry.done.is_set()}
            self._cache[host, port] = look_up
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
        self._valid_until = 0.0  # time.monotonic()
        self.done = threading.Event()
        self.addresses: list[SocketAddress] = []
        self.error: OSError | None = None

    @property
    def is_valid(self) -> bool:
        """Return whether the look-up is running, or its result is fresh. Failures are not cached."""
        return not self.done.is_set() or time.monotonic() < self._valid_until

    def run(self) -> None:
        try:
            found = socket.getaddrinfo(*self._name, type=socket.SOCK_STREAM)
            self.addresses = list(dict.fromkeys((int(entry[0]), tuple(entry[4])) for entry in found))
            self._valid_until = time.monotonic() + KEEP_SECONDS
        except OSError as error:
            self.error = error
        except UnicodeError:
            self.error = socket.gaierror(socket.EAI_NONAME, "not a host name")
        finally:
            self.done.set()


def _literal(host: str, port: int) -> SocketAddress | None:
    """Parse an IP address; None: a name to look up."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv4Address):
        return socket.AF_INET, (host, port)
    return None if ip.scope_id else (socket.AF_INET6, (host, port, 0, 0))
