"""Load shedding in front of the application: some threads always stay free for health checks.

When nearly every thread of the process serves a request, for example because a database hangs, further requests are
refused at once instead of taking the last threads. The application builds the refusal, see `refuse_when_full`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from service.errors import Overloaded
from service.web.current import Request

MOMENT = 0.25  # seconds that a request waits for a free thread
ALWAYS = frozenset({"/health", "/ready", "/metrics"})  # never refused
FULL = "slipway.full"  # key in a request's environ: True if it arrived when the process was full
Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class Gate:
    """WSGI middleware that counts requests until their response is closed; at most `most` are served at once.

    A further request waits up to `MOMENT`: in a burst of short requests a thread is free within milliseconds. If the
    wait fails, the process is stuck, and further requests are refused at once until one has ended.
    """

    def __init__(self, app: Application, most: int) -> None:
        self._app = app
        self._most = most
        self._change = threading.Condition()  # guards both fields below
        self._served = 0
        self._stuck = False

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ.get("PATH_INFO") in ALWAYS or not self._enter(environ):
            return self._app(environ, start_response)
        try:
            return _Answer(self._app(environ, start_response), self._leave)
        except BaseException:
            self._leave()
            raise

    def _enter(self, environ: dict[str, Any]) -> bool:
        """Count a request that may be served, and mark one that may not."""
        with self._change:
            wait = 0.0 if self._stuck else MOMENT
            admitted = self._change.wait_for(lambda: self._served < self._most, wait)
            self._served += admitted
            self._stuck = not admitted
            environ[FULL] = not admitted
            return admitted

    def _leave(self) -> None:
        with self._change:
            self._served -= 1
            self._stuck = False
            self._change.notify()


class _Answer:
    """Response iterable that calls `closed` when the server closes it, even if closing fails."""

    def __init__(self, answer: Iterable[bytes], closed: Callable[[], None]) -> None:
        self._answer = answer
        self._closed = closed

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._answer)

    def close(self) -> None:
        try:
            if hasattr(self._answer, "close"):
                self._answer.close()
        finally:
            self._closed()


def refuse_when_full(request: Request) -> None:
    """Refuse a request that arrived when the process was full. Raises `Overloaded`."""
    if request.environ.get(FULL):
        raise Overloaded("Every thread of this worker is taken; try again shortly.", retry_after=1)
