"""Watch over gateway calls of this process: stops those whose run has ended, or whose client reads nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from service.auth.run_tokens import RunTokens
from service.errors import DatabaseUnavailable
from service.llm.client import ModelCall

log = logging.getLogger("slipway.gateway")
PAUSE = 0.5  # seconds between two looks
IDLE = 5.0  # seconds without a call after which the thread ends
UNREAD_SECONDS = 30.0  # a client takes to read a piece of an answer, before it is hung up on


class WatchedCall:
    """Call under way, made with the token of this digest; None: a run's own, which is stopped by its handle.

    `hang_up` ends its client's connection, which wakes a thread that is blocked in writing to it.
    """

    def __init__(self, digest: str | None, call: ModelCall, hang_up: Callable[[], None]) -> None:
        self.digest = digest
        self._call, self._hang_up = call, hang_up
        self._lock = threading.Lock()
        self._ended = False
        self._offered_at: float | None = None

    @contextmanager
    def offering(self) -> Iterator[None]:
        """Note that the client is given a piece, until it has taken it."""
        self._offered_at = time.monotonic()
        yield
        self._offered_at = None

    def is_unread(self) -> bool:
        offered_at = self._offered_at
        return offered_at is not None and time.monotonic() - offered_at > UNREAD_SECONDS

    def stop(self) -> None:
        """Stop the call, and hang up on a client that has not taken what it was given."""
        self._call.abort()
        with self._lock:  # a connection that has ended its request may carry another
            if self._offered_at is not None and not self._ended:
                self._hang_up()

    def end(self) -> None:
        with self._lock:
            self._ended = True


class GatewayWatch:
    """Thread that looks at all calls under way, and at their tokens by one query. Starts with the first call."""

    def __init__(self, tokens: RunTokens) -> None:
        self._tokens = tokens
        self._lock = threading.Lock()
        self._calls: set[WatchedCall] = set()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, watched: WatchedCall) -> Iterator[None]:
        """Stop the call once its token is no longer valid, or its client reads nothing."""
        with self._lock:
            self._calls.add(watched)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="gateway-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            watched.end()
            with self._lock:
                self._calls.discard(watched)

    def _loop(self) -> None:
        idle_until = time.monotonic() + IDLE
        while True:
            time.sleep(PAUSE)
            with self._lock:
                calls = list(self._calls)
                if calls:
                    idle_until = time.monotonic() + IDLE
                elif time.monotonic() > idle_until:
                    self._thread = None
                    return
            try:
                self._look(calls)
            except DatabaseUnavailable:
                pass  # a call that goes on is held already
            except Exception:  # calls depend on this thread
                log.exception("gateway_watch_failed")

    def _look(self, calls: list[WatchedCall]) -> None:
        for call in calls:
            if call.is_unread():
                call.stop()
        tokens = {call.digest for call in calls if call.digest is not None}
        valid = self._tokens.still_valid(tokens) if tokens else ()
        for call in calls:
            if call.digest is not None and call.digest not in valid:
                call.stop()
