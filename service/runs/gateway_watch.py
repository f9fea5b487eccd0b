"""Watch over gateway calls under way in this process: stops those whose run has ended, or lets nobody go on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from service.auth.run_tokens import RunTokens
from service.errors import DatabaseUnavailable
from service.llm.client import ModelCall

log = logging.getLogger("slipway.gateway")
PAUSE = 0.5  # seconds between two looks
IDLE = 5.0  # seconds without a call after which the thread ends


class GatewayWatch:
    """Thread that looks at the tokens of all calls under way, by one query. Starts with the first call."""

    def __init__(self, tokens: RunTokens) -> None:
        self._tokens = tokens
        self._lock = threading.Lock()
        self._calls: dict[int, tuple[str, ModelCall]] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def watching(self, digest: str, call: ModelCall) -> Iterator[None]:
        """Abort the call once the token with this digest is no longer valid."""
        with self._lock:
            self._calls[id(call)] = (digest, call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="gateway-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                del self._calls[id(call)]

    def _loop(self) -> None:
        idle_until = time.monotonic() + IDLE
        while True:
            time.sleep(PAUSE)
            with self._lock:
                calls = list(self._calls.values())
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

    def _look(self, calls: list[tuple[str, ModelCall]]) -> None:
        valid = self._tokens.still_valid({digest for digest, _ in calls}) if calls else ()
        for digest, call in calls:
            if digest not in valid:
                call.abort()
