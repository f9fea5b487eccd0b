"""The Gunicorn worker that serves the app: its threaded one, with what bad and slow clients need besides.

What is not HTTP is answered with a problem and a request id, as every other error is. All of a request must be there
within `ARRIVAL`: a client that stops halfway would otherwise keep its thread for ever. And a connection is closed by
the thread that served it, since a client that does not close its side would otherwise hold up the loop that accepts.
"""

from __future__ import annotations

import io
import logging
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import orjson
from gunicorn import util
from gunicorn.http import errors as http
from gunicorn.workers.gthread import ThreadWorker

from service import errors
from service.observe import logs
from service.web.schemas import MAX_BODY
from service.web.timing import request_id

log = logging.getLogger("slipway.request")
ARRIVAL = 10.0  # seconds from a connection to the last byte of its request
LINGER = (
    2.0  # seconds, and bytes, that are read after an answer: the client may still be sending, and must see it
)
LINGER_BYTES = 8 * MAX_BODY
Environ = dict[str, Any]
Application = Callable[[Environ, Any], Iterable[bytes]]

_OF_PARSER: tuple[tuple[type[Exception], type[errors.SlipwayError]], ...] = (
    (http.InvalidResponseHeader, errors.SlipwayError),  # these two are ours, not the client's
    (http.InvalidResponseHeaderName, errors.SlipwayError),
    (http.LimitRequestLine, errors.UriTooLong),
    (http.LimitRequestHeaders, errors.HeadersTooLarge),
    (http.ParseException, errors.BadRequest),
)


class BrokenOff(http.ParseException):  # type: ignore[misc]
    """The body ended before its length was reached."""


class Worker(ThreadWorker):  # type: ignore[misc]
    """One process; a thread serves one connection and one request on it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._due: dict[socket.socket, float] = {}  # until when a request must have arrived

    wsgi: Application

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi = self._arrived(self.wsgi)

    def _arrived(self, app: Application) -> Application:
        """`app`, called once the body is there, or as soon as it is too large."""

        def whole(environ: Environ, start_response: Any) -> Iterable[bytes]:
            environ["wsgi.input"] = io.BytesIO(_body(environ))
            self._due.pop(environ["gunicorn.socket"], None)
            return app(environ, start_response)

        return whole

    def handle(self, conn: Any) -> Any:
        """Serve a connection, in a thread of its own. What is returned is true where it is to be kept."""
        logs.clear()
        sock = conn.sock
        self._due[sock] = time.monotonic() + ARRIVAL
        kept = super().handle(conn)
        if self._overdue(sock):
            self.handle_error(None, sock, conn.client, TimeoutError())
        self._due.pop(sock, None)
        if not kept:
            util.close_graceful(sock, LINGER, LINGER_BYTES)
            conn.close = lambda graceful=False: None
        return kept

    def _overdue(self, sock: socket.socket) -> bool:
        return time.monotonic() > self._due.get(sock, float("inf"))

    def murder_pending(self) -> None:
        """Gunicorn's look at idle connections, every second; here also at requests that do not arrive."""
        super().murder_pending()
        for sock in list(self._due):
            if self._overdue(sock):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RD)  # whoever reads sees an end

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what never reached the app, or broke outside of it."""
        error = errors.RequestTimeout() if self._overdue(client) else _error_of(exc)
        self._due.pop(client, None)
        req = req or getattr(exc, "req", None)
        sent = dict(getattr(req, "headers", None) or ()).get("X-REQUEST-ID", "")
        own_id = request_id(sent)
        logs.bind(request_id=own_id)
        if error.status >= 500:
            log.error("unhandled_error", exc_info=exc)
        method = getattr(req, "method", None) or "(none)"
        log.info(
            "request",
            extra={"method": method, "route": "(none)", "status": error.status, "why": type(exc).__name__},
        )
        self.app.callable.extensions["slipway"].metrics.request("(none)", "(none)", error.status, 0.0)
        with suppress(OSError):
            client.settimeout(LINGER)
            client.sendall(_answer(error, getattr(req, "path", None) or "/", own_id))


def _body(environ: Environ) -> bytes:
    """The request's body, cut one byte beyond the limit. Raises `BrokenOff`."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > MAX_BODY:
        return b""  # the app refuses it by its length
    try:
        body: bytes = environ["wsgi.input"].read(MAX_BODY + 1)
    except http.NoMoreData:
        raise BrokenOff() from None
    if len(body) < length:
        raise BrokenOff()
    return body


def _error_of(exc: Exception) -> errors.SlipwayError:
    return next((ours for theirs, ours in _OF_PARSER if isinstance(exc, theirs)), errors.SlipwayError)()


def _answer(error: errors.SlipwayError, path: str, own_id: str) -> bytes:
    """A whole response. It says nothing of what was wrong in particular: that would quote the request."""
    body = orjson.dumps({**error.as_problem(), "instance": path, "request_id": own_id})
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        "Connection: close",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        f"X-Request-ID: {own_id}",
        "X-Content-Type-Options: nosniff",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body
