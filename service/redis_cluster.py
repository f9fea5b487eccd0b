"""A Redis cluster's client that is made when it is first used, so that a process starts while the cluster is away.

redis-py's client asks the nodes for their slots as it is made, and again whenever one fails, each of them in turn
until one answers. Here one thread does that for all, nobody waits for it for longer than `PATIENCE`, and after it
has failed nobody tries for `PAUSE`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from redis.exceptions import ConnectionError

PATIENCE = 1.0  # seconds that a caller waits for the nodes to be found
PAUSE = 1.0  # seconds that they are left alone after they could not be


class LazyCluster:
    """Stands in for the client that `make` makes, with all its methods; `make` raises when no node answers."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._client: Any = None
        self._lock = threading.Lock()
        self._attempt: _Attempt | None = None

    def __getattr__(self, name: str) -> Any:
        """Raises `redis.ConnectionError` while the cluster is away."""
        return getattr(self._client or self._connected(), name)

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _connected(self) -> Any:
        with self._lock:
            attempt = self._attempt
            if attempt is None or attempt.is_over():
                attempt = self._attempt = _Attempt()
                threading.Thread(
                    target=self._connect, args=(attempt,), name="redis-cluster", daemon=True
                ).start()
        attempt.done.wait(max(0.0, attempt.began + PATIENCE - time.monotonic()))
        if self._client is None:
            raise ConnectionError("No node of the cluster answers.") from attempt.error
        return self._client

    def _connect(self, attempt: _Attempt) -> None:
        try:
            client = self._make()
            client.nodes_manager.initialize = _OneAtATime(client.nodes_manager.initialize)
            self._client = client
        except Exception as error:  # told to all who wait for it
            attempt.error = error
        finally:
            attempt.ended = time.monotonic()
            attempt.done.set()


class _Attempt:
    """One attempt to connect, shared by all who come while it is made and for `PAUSE` after it has failed."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ended = 0.0
        self.error: Exception | None = None
        self.done = threading.Event()

    def is_over(self) -> bool:
        return self.done.is_set() and time.monotonic() >= self.ended + PAUSE


class _OneAtATime:
    """Finding the nodes again, in place of redis-py's own: where it hangs or fails, callers do not queue for it.

    With every node frozen, each of the threads that wait would otherwise ask each node in turn.
    """

    def __init__(self, find: Callable[..., None]) -> None:
        self._find = find
        self._turn = threading.Lock()
        self._found = 0  # how often
        self._not_before = 0.0  # time.monotonic()

    def __call__(self, *args: Any, **options: Any) -> None:
        found = self._found
        if not self._turn.acquire(timeout=PATIENCE):
            raise ConnectionError("The cluster's nodes are being looked for.")
        try:
            if self._found != found:
                return  # by another thread, meanwhile
            if time.monotonic() < self._not_before:
                raise ConnectionError("The cluster is being left alone after a failure.")
            try:
                self._find(*args, **options)
                self._found += 1
            except Exception:
                self._not_before = time.monotonic() + PAUSE
                raise
        finally:
            self._turn.release()
