"""The Gunicorn worker that serves the app: of its threads one leads, and the others are under way or wait their turn.

Gunicorn's own threaded worker has one thread that accepts and hands each connection to others and back, by way of
futures, a pipe and a poller, which costs more than a cached answer. Here whoever leads takes the next request that has
arrived whole, wherever it arrived, and serves it; only when that has to wait for something does another thread lead
(see `service.leading`). So threads do not fight over the interpreter, and a connection without a request holds none.

What is not HTTP is answered with a problem and a request id, as every other error is. All of a request must be there
within `SILENCE`, and of an answer something be taken every `SEND_SECONDS`: a client that stops halfway would otherwise
be kept for ever.
"""

from __future__ import annotations

import io
import logging
import selectors
import socket
import struct
import threading
import time
from _thread import start_new_thread
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from typing import Any

import orjson
from gunicorn import util
from gunicorn.http import errors as http
from gunicorn.http import wsgi
from gunicorn.workers.gthread import ThreadWorker

from service import errors
from service.leading import lead
from service.observe import logs
from service.web.arrival import Connection, Environ, body_of
from service.web.departure import Outgoing
from service.web.schemas import MAX_BODY
from service.web.timing import request_id

log = logging.getLogger("slipway.request")
SILENCE = 10.0  # seconds a connection may be silent, and from the first byte of a request to its last
SEND_SECONDS = 30  # a client that takes nothing for so long, while something is to be sent to it, is let go
# For so long, and so much, is read after an answer: the client may still be sending, and must see it.
LINGER = 2.0  # seconds
LINGER_BYTES = 8 * MAX_BODY
BUSY = 0.1  # seconds after which a leader that has not stepped aside by itself is replaced
SIGN = 1.0  # seconds between two signs of life
MOST_WAITING = 16  # threads that wait to lead; one that comes back to as many ends
STOP_SECONDS = 1.0  # for which a worker that stops still serves connections it has kept, once each
SELECT_SECONDS = 0.5  # after which a leader looks whether its process is to stop
Application = Callable[[Environ, Any], Iterable[bytes]]

_OF_PARSER: tuple[tuple[type[Exception], type[errors.SlipwayError]], ...] = (
    (http.InvalidResponseHeader, errors.SlipwayError),  # these two are ours, not the client's
    (http.InvalidResponseHeaderName, errors.SlipwayError),
    (http.LimitRequestLine, errors.UriTooLong),
    (http.LimitRequestHeaders, errors.HeadersTooLarge),
    (http.ParseException, errors.BadRequest),
)


class Leader:
    """A thread's time as the leader: what it serves, and since when (time.monotonic())."""

    def __init__(self) -> None:
        self.serves: Connection | None = None
        self.since = 0.0


class Worker(ThreadWorker):  # type: ignore[misc]
    """One process. Of the threads there may be, as many are there as were needed at once."""

    wsgi: Application
    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._change = threading.Lock()  # of all below; never held for long
        self._threads = 0
        self._waiting = 0
        self._lead = threading.Lock()  # held while somebody leads
        self._leader: Leader | None = None
        self._poller = selectors.DefaultSelector()
        self._arrived: deque[Connection | socket.socket] = deque()  # where something came: listeners too
        self._silent: dict[Connection, None] = {}  # watched, the longest silent first
        self._reading: dict[socket.socket, float] = {}  # by a thread that waits for more, until when it may
        self._stop_at = float("inf")

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # What the settings are does not change any more; Gunicorn looks each of them up some thirty times a request.
        self.cfg.__dict__.update({name: setting.get() for name, setting in self.cfg.settings.items()})
        self.wsgi = self._with_body(self.wsgi)

    def _with_body(self, app: Application) -> Application:
        """`app`, called once the body is there, or as soon as it is too large."""

        def whole(environ: Environ, start_response: Any) -> Iterable[bytes]:
            body = body_of(environ)
            environ["wsgi.input"] = io.BytesIO(body or b"")
            if body is not None and len(body) <= MAX_BODY:
                del self._reading[environ["gunicorn.socket"]]
            return app(environ, start_response)

        return whole

    # --- the main thread: signals, signs of life, and a look at those who are busy ---------------------------

    def run(self) -> None:
        """Until the process is told to stop; then what is under way has its time."""
        self.poller.register(
            self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks
        )
        for listener in self.sockets:
            listener.setblocking(False)
            # What it accepts inherits this: see socket(7).
            listener.sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_SECONDS, 0)
            )
            self._poller.register(listener.sock, selectors.EVENT_READ, listener.sock)
        with self._change:
            self._one_more()
        sign = 0.0
        while self.alive and self.is_parent_alive():
            if time.monotonic() >= sign:
                sign = time.monotonic() + SIGN
                self.notify()
            self._look()
        self.alive = False
        self._stop_at = time.monotonic() + STOP_SECONDS
        for listener in self.sockets:
            self._poller.unregister(listener.sock)
            while self._accept(listener.sock):  # what was on its way
                pass
            listener.close()
        end = time.monotonic() + self.cfg.graceful_timeout
        while self._threads > 0 and time.monotonic() < end:
            self.notify()
            self._look()

    def _look(self) -> None:
        self.wait_for_and_dispatch_events(BUSY)  # a signal ends it
        leader, now = self._leader, time.monotonic()
        if leader is not None and leader.serves is not None and now - leader.since > BUSY:
            self._pass_on(leader)
        for sock in [sock for sock in list(self._reading) if self._overdue(sock)]:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RD)  # whoever reads sees an end
        crowded = (self._threads - self._waiting) * 2 > self.cfg.threads
        self.max_keepalived = 0 if crowded or len(self._silent) >= self.worker_connections else 1

    # --- who leads --------------------------------------------------------------------------------------------

    def _one_more(self) -> None:
        """Under `_change`: a thread that waits to lead."""
        try:
            start_new_thread(self._work, ())  # `threading.Thread` would wait until it runs
        except RuntimeError:  # the system gives no more: those that are there go on
            return
        self._threads += 1
        self._waiting += 1

    def _work(self) -> None:
        """A thread's life: wait to lead, serve what has arrived until another one leads, and wait again."""
        going = True
        while going:
            self._lead.acquire()
            own = Leader()
            with self._change:
                self._waiting -= 1
                self._leader = own
            while self._leader is own:
                if time.monotonic() > self._stop_at or (not self.alive and not self._silent):
                    self._pass_on(own)
                    going = False
                    continue
                try:
                    self._take_next(own)
                except Exception:  # a thread that ended here would lead for ever
                    log.exception("leader_failed")
                    self._pass_on(own)
            with self._change:
                going = going and self._waiting < MOST_WAITING
                self._waiting += going
                self._threads -= not going
        if not self.alive:
            for conn in list(self._silent):
                self._close(conn)

    def _pass_on(self, own: Leader) -> None:
        """Another thread leads, if `own` still does. May be called from any thread."""
        with self._change:
            if self._leader is not own:
                return
            self._leader = None
            if own.serves is not None:
                self._unwatch(own.serves)
            if self._waiting == 0 and self._threads < self.cfg.threads and self.alive:
                self._one_more()
            self._lead.release()

    # --- by the leader: what comes next ----------------------------------------------------------------------

    def _take_next(self, own: Leader) -> None:
        if not self._arrived:
            self._let_go_of_silent(own)
            if self._leader is own and not self._arrived:
                self._arrived.extend(key.data for key, _ in self._poller.select(SELECT_SECONDS))
            return
        arrived = self._arrived.popleft()
        if not isinstance(arrived, Connection):
            if self._accept(arrived):  # there may be more: after it and one other it is their turn
                self._arrived.insert(2, arrived)
        elif not arrived.receive():
            if arrived.seen:  # the parser says what is missing
                self._serve(arrived, own, waits=True)
            else:
                self._close(arrived)
        elif (whole := arrived.is_whole()) is not False:
            self._serve(arrived, own, waits=whole is None)
        elif arrived.rested:  # the first bytes of another request: its time begins
            arrived.rested = False
            self._watch(arrived)

    def _accept(self, listener: socket.socket) -> bool:
        """False: there is nobody, or there are too many open files, or the listener has been closed."""
        try:
            sock, client = listener.accept()
            conn = Connection(self.cfg, sock, client, sock.getsockname())
        except OSError:
            return False
        self._watch(conn)
        # Its request is mostly there already: to serve it before another one is accepted leaves that to a worker that
        # has a thread for it.
        self._arrived.appendleft(conn)
        while len(self._silent) > self.worker_connections and (longest := self._longest_silent()):
            self._close(longest)
        return True

    def _longest_silent(self) -> Connection | None:
        with self._change:  # a dict that grows meanwhile would not be looked into
            return next(iter(self._silent), None)

    def _let_go_of_silent(self, own: Leader) -> None:
        now = time.monotonic()
        while (longest := self._longest_silent()) is not None and longest.until < now:
            before = longest.seen
            if longest.receive() and ((longest.seen and not before) or longest.is_whole() is not False):
                self._watch(longest)  # nobody led in time to see what had come
                self._arrived.append(longest)
                continue
            if not longest.seen:
                self._close(longest)
                continue
            own.serves = longest
            self._pass_on(own)  # to tell it takes its time
            self._reading[longest.sock] = 0.0
            self.handle_error(None, longest.sock, longest.client, TimeoutError())
            self._close(longest)
            return

    def _watch(self, conn: Connection) -> None:
        """Wait for more from a client, from now on."""
        with self._change:
            self._silent.pop(conn, None)
            self._silent[conn] = None
            conn.until = time.monotonic() + SILENCE
            if not conn.watched:
                conn.watched = True
                self._poller.register(conn.sock, selectors.EVENT_READ, conn)

    def _unwatch(self, conn: Connection) -> None:
        self._silent.pop(conn, None)
        if conn.watched:
            conn.watched = False
            self._poller.unregister(conn.sock)

    def _close(self, conn: Connection) -> None:
        with self._change:
            self._unwatch(conn)
        if self._reading.pop(conn.sock, None) is not None:  # the client may still be sending
            util.close_graceful(conn.sock, LINGER, LINGER_BYTES)
        else:
            util.close(conn.sock)

    # --- one request ------------------------------------------------------------------------------------------

    def _serve(self, conn: Connection, own: Leader, waits: bool) -> None:
        """`waits`: not all of the request is there, or it is not certain where it ends."""
        own.since = time.monotonic()
        own.serves = conn
        with self._change:
            self._silent.pop(conn, None)
        if waits:
            self._pass_on(own)
        else:
            lead(partial(self._pass_on, own))
        keep = False
        try:
            keep = self.handle(conn)
        except Exception:
            log.exception("connection_failed")
        lead(None)
        if keep:
            own.serves = None
            conn.rested = True
            self._watch(conn)
        else:
            if conn.sock in self._reading:
                self._pass_on(own)
            own.serves = None
            self._close(conn)

    def handle(self, conn: Connection) -> bool:
        """Serve a request. False: the connection is to be closed."""
        logs.clear()
        self._reading[conn.sock] = time.monotonic() + SILENCE
        keep: bool = super().handle(conn)
        if self._overdue(conn.sock):
            self.handle_error(None, conn.sock, conn.client, TimeoutError())
        return keep and self.alive

    def _keepalive_after(self, conn: Connection, keepalive: bool) -> bool:
        """Not where some of the request was left unread, or the client has sent more than that request."""
        return keepalive and conn.sock not in self._reading and not conn.parser.unreader.take_buffered()

    def _overdue(self, sock: socket.socket) -> bool:
        return time.monotonic() > self._reading.get(sock, float("inf"))

    def handle_request(self, req: Any, conn: Connection) -> bool:
        """Call the app, and send what it answers, without Gunicorn's hooks and access log, which nothing uses.

        False: the connection is to be closed.
        """
        answer, environ = wsgi.create(req, conn.sock, conn.client, conn.server, self.cfg, Outgoing)
        environ["wsgi.multithread"] = True
        if not self.alive or not self.max_keepalived:
            answer.force_close()
        try:
            parts: Any = self.wsgi(environ, answer.start_response)
            try:
                for part in parts:
                    answer.write(part)
                answer.close()
            finally:
                if hasattr(parts, "close"):
                    parts.close()
        except BlockingIOError:
            return False  # the client takes no more
        except OSError:
            raise  # the client has gone
        except Exception:
            if not answer.headers_sent:
                raise
            log.exception("answer_broken_off")  # it cannot be taken back
            return False
        return not answer.should_close()

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: Exception) -> None:
        """Answer what never reached the app, or broke outside of it."""
        error = errors.RequestTimeout() if self._overdue(client) else _error_of(exc)
        self._reading[client] = float("inf")
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
