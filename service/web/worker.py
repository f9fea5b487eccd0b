"""The Gunicorn worker that serves the app: threads that each take a connection, serve it, and take the next.

Gunicorn's own threaded worker accepts in one thread and hands each connection to others and back, by way of futures, a
pipe and a poller, which costs more than a cached answer. Here whoever is free waits in `accept` itself: the kernel
wakes one, in whichever process, so work spreads by itself, and a worker whose threads are all taken takes no more.

What is not HTTP is answered with a problem and a request id, as every other error is. All of a request must be there
within `ARRIVAL`: a client that stops halfway would otherwise keep its thread for ever.
"""

from __future__ import annotations

import io
import logging
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import orjson
from gunicorn import util
from gunicorn.http import errors as http
from gunicorn.workers.gthread import TConn, ThreadWorker

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
LOOK = 1.0  # seconds between two looks at requests that do not arrive, and between two signs of life
MOST_WAITING = 16  # threads that wait for connections; one that comes back to as many ends
ACCEPT_SECONDS = 0.5  # after which a thread that waits looks whether its process is to stop
_IN_KERNEL = struct.pack("ll", 0, int(ACCEPT_SECONDS * 1_000_000))  # a `struct timeval`: SO_RCVTIMEO
_NEVER = struct.pack("ll", 0, 0)
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
    """One process; a thread serves one connection and one request on it.

    Of the threads there may be, as many are there as were needed at once; at least one waits while there is room.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._due: dict[socket.socket, float] = {}  # until when a request must have arrived
        self._change = threading.Lock()
        self._threads = 0
        self._waiting = 0

    wsgi: Application
    alive: bool

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi = self._arrived(self.wsgi)

    def _arrived(self, app: Application) -> Application:
        """`app`, called once the body is there, or as soon as it is too large."""

        def whole(environ: Environ, start_response: Any) -> Iterable[bytes]:
            body = _body(environ)
            environ["wsgi.input"] = io.BytesIO(body or b"")
            if body is not None and len(body) <= MAX_BODY:
                del self._due[environ["gunicorn.socket"]]
            return app(environ, start_response)

        return whole

    def run(self) -> None:
        """Until the process is told to stop; then what is under way has its time."""
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        for listener in self.sockets:
            listener.setblocking(True)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _IN_KERNEL)
            with self._change:
                self._one_more(listener.sock, listener.getsockname())
        while self.alive and self.is_parent_alive():
            self._look()
        self.alive = False
        for listener in self.sockets:
            listener.close()  # for those who wait at it, once they have stopped waiting
        end = time.monotonic() + self.cfg.graceful_timeout
        while self._threads > 0 and time.monotonic() < end:
            self._look(0.1)

    def _look(self, wait: float = LOOK) -> None:
        self.notify()
        self.wait_for_and_dispatch_events(wait)  # a signal ends it
        self._cut_off_overdue()

    def _one_more(self, listener: socket.socket, address: Any) -> None:
        """Under `_change`: a thread that waits for connections."""
        try:
            threading.Thread(
                target=self._serve, args=(listener, address), name="request", daemon=True
            ).start()
        except RuntimeError:  # the system gives no more: those that are there go on
            return
        self._threads += 1
        self._waiting += 1

    def _serve(self, listener: socket.socket, address: Any) -> None:
        """One connection after the other, until the process is to stop or enough others wait.

        The listener may be closed by now: whoever stops waits for every thread that does not say it has ended.
        """
        while self.alive:
            try:
                sock, client = listener.accept()
            except BlockingIOError:  # nobody came within ACCEPT_SECONDS
                continue
            except OSError:
                if not self.alive or listener.fileno() < 0:
                    break
                time.sleep(0.05)  # too many open files: they are closed meanwhile
                continue
            with self._change:
                self._waiting -= 1
                if self._waiting == 0 and self._threads < self.cfg.threads:
                    self._one_more(listener, address)
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _NEVER)  # it has it from the listener
                self.handle(TConn(self.cfg, sock, client, address))
            except Exception:
                log.exception("connection_failed")
            with self._change:
                self._waiting += 1
                if self._waiting > MOST_WAITING:
                    break
        with self._change:
            self._waiting -= 1
            self._threads -= 1

    def handle(self, conn: Any) -> None:
        """Serve a connection, and close it."""
        logs.clear()
        sock = conn.sock
        self._due[sock] = time.monotonic() + ARRIVAL
        conn.data_ready = True  # no second wait before the one for all of the request
        super().handle(conn)
        if self._overdue(sock):
            self.handle_error(None, sock, conn.client, TimeoutError())
        if self._due.pop(sock, None) is None:
            util.close(sock)
        else:  # not all of the request was read
            util.close_graceful(sock, LINGER, LINGER_BYTES)

    def _overdue(self, sock: socket.socket) -> bool:
        return time.monotonic() > self._due.get(sock, float("inf"))

    def _cut_off_overdue(self) -> None:
        for sock in list(self._due):
            if self._overdue(sock):
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RD)  # whoever reads sees an end

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what never reached the app, or broke outside of it."""
        error = errors.RequestTimeout() if self._overdue(client) else _error_of(exc)
        self._due[client] = float("inf")
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


def _body(environ: Environ) -> bytes | None:
    """The request's body, cut one byte beyond the limit; None where it is left unread. Raises `BrokenOff`."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > MAX_BODY:
        return None  # the app refuses it by its length
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
