"""Gunicorn's threaded worker, with errors from outside the application as problem documents."""

from __future__ import annotations

import logging
import socket
import struct
import threading
from contextlib import suppress
from typing import Any

from gunicorn.http import errors as http
from gunicorn.workers.gthread import ThreadWorker

from service import errors
from service.observe import logs
from service.web.problems import raw_problem
from service.web.timing import outcome_of, request_id

log = logging.getLogger("slipway.request")
# Longest silence of a client within a request, whose thread waits for it; nginx, where it is in front, waits less.
SILENT_SECONDS = 30
_SILENT = struct.pack("@ll", SILENT_SECONDS, 0)  # a timeval
_OURS = (http.InvalidResponseHeader, http.InvalidResponseHeaderName)
_BY_PARSER_ERROR: dict[type[Exception], type[errors.SlipwayError]] = {
    http.LimitRequestLine: errors.UriTooLong,
    http.LimitRequestHeaders: errors.HeadersTooLarge,
}


class Worker(ThreadWorker):  # type: ignore[misc]
    _serving = 0  # threads that serve a request
    _counting = threading.Lock()

    @property
    def serving(self) -> tuple[int, int]:
        """Number of threads that serve a request, and the most of them."""
        return self._serving, self.cfg.threads

    def handle(self, conn: Any) -> Any:
        """Serve a connection; give it up where its client falls silent within a head or a body."""
        with suppress(OSError):  # closed already
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _SILENT)
        with self._counting:
            self._serving += 1
        try:
            return super().handle(conn)
        finally:
            with self._counting:
                self._serving -= 1

    def handle_request(self, req: Any, conn: Any) -> bool:
        """Serve a request. A connection that was to be upgraded serves no other: what follows may be frames."""
        kept = super().handle_request(req, conn)
        return kept and all(name != "UPGRADE" for name, _ in req.headers)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer a request that cannot be parsed (4xx), or whose response failed outside the application (500)."""
        refused = isinstance(exc, http.ParseException) and not isinstance(exc, _OURS)
        error = _BY_PARSER_ERROR.get(type(exc), errors.BadRequest)() if refused else errors.SlipwayError()
        req = req or getattr(exc, "req", None)
        sent = dict(getattr(req, "headers", None) or ()).get("X-REQUEST-ID", "")
        logs.clear(request_id=(own_id := request_id(sent)))
        if not refused:
            log.error("unhandled_error", exc_info=exc)
        about = {
            "method": getattr(req, "method", None) or "(none)",
            "route": "(none)",
            "status": error.status,
            "outcome": outcome_of(error.status),
        }
        log.info("request", extra={**about, "why": type(exc).__name__})
        self.app.callable.extensions["slipway"].infra.metrics.request("(none)", "(none)", error.status, 0.0)
        with suppress(OSError):
            client.sendall(raw_problem(error, getattr(req, "path", None) or "/", own_id))
