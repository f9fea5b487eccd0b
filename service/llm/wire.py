"""HTTP/1.1 connection to the model: blocking socket and C parser, one exchange at a time."""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import cast

import httptools
import httpx2

from service.llm.client import ModelCall
from service.llm.headroom import LIMITS

RECEIVE_BYTES = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024
DRAIN_READS = 4
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
# Headers that this service or the SDK reads. An answer has about twenty, and each costs httpx2 eight calls.
READ = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"request-id",
        b"x-amzn-requestid",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
        b"anthropic-workspace-id",
    }
)


class AnswerRefused(httpx2.RemoteProtocolError):
    """Raised for an answer that is too large or compressed. Retrying would bring the same."""


class Wire:
    """Connection that carries one exchange at a time. Not thread-safe.

    During an exchange its `ModelCall` holds the socket, so that `abort()` wakes a blocked read.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.idle_since = 0.0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []  # only those in `READ`
        self.limits: dict[bytes, bytes] | None = None  # those in `LIMITS`, if there are any
        self.answer_started = False  # whether any byte of the answer has arrived
        self._call: ModelCall | None = None
        self._read_wait = 0.0
        self._plain = not isinstance(sock, ssl.SSLSocket)  # TLS may buffer decrypted data
        self._body: list[bytes] = []
        self._fault: Exception | None = None
        self._has_head = self._complete = self._keep_alive = self._ends_with_close = False
        self._framed = False  # whether the head says where the body ends
        self._received = 0  # bytes of this exchange, framing and trailers included
        self._parser = httptools.HttpResponseParser(self)

    @property
    def complete(self) -> bool:
        """Return whether the whole answer has arrived."""
        return self._complete

    @property
    def reusable(self) -> bool:
        return self._complete and self._keep_alive

    @property
    def quiet(self) -> bool:
        """Return whether an idle connection is reusable: readable data, or EOF, rules it out."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def ask(self, message: bytes, call: ModelCall, read_wait: float, write_wait: float) -> None:
        """Send a request and wait for the head of its answer. On failure, close and raise an httpx2 error."""
        self.status, self.headers, self._body, self.limits = 0, [], [], None
        self.answer_started = self._has_head = self._complete = False
        self._keep_alive = self._ends_with_close = False
        self._framed = False
        self._received = 0
        self._call, self._read_wait, self._fault = call, read_wait, None
        call.attach(self.sock)
        try:
            self._send(message, write_wait)
            while not self._has_head:
                self._receive()
                if self._received > MAX_HEAD_BYTES and not self._has_head:
                    raise AnswerRefused("The head of the model's answer is too large")
        except BaseException:
            self.close()
            raise

    def body(self) -> Iterator[bytes]:
        """Yield the body as it arrives, without its transfer coding."""
        while True:
            if self._body:
                pieces, self._body = self._body, []
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if self._complete:
                return
            self._receive()

    def arrived(self) -> bytes:
        """Return the available part of the body without blocking. Raises as `body` does."""
        with suppress(BlockingIOError, ssl.SSLWantReadError):
            self._receive(wait=False)
            while not self._plain and cast(ssl.SSLSocket, self.sock).pending() and not self._complete:
                self._receive(wait=False)
        pieces, self._body = self._body, []
        return b"".join(pieces)

    def drain(self, seconds: float) -> bytes:
        """Read and return the rest of an answer, so that the connection can be reused. `seconds` limits each read."""
        self._read_wait = seconds
        with suppress(httpx2.HTTPError):
            for _ in range(DRAIN_READS):
                if self._complete:
                    break
                self._receive()
        pieces, self._body = self._body, []
        return b"".join(pieces)

    def rest(self) -> None:
        """End the exchange before the connection returns to the pool: a later abort must not touch it."""
        self._release()
        self.idle_since = time.monotonic()

    def close(self) -> None:
        self._release()  # before the close: the file descriptor may be reused at once
        self.sock.close()

    def _release(self) -> None:
        if self._call is not None:
            self._call.detach()
            self._call = None

    def _within(self, wait: float) -> float:
        """Cut a wait to the time left of the call, which many short waits may not exceed. Raises `ReadTimeout` at 0."""
        remaining = self._call.remaining() if self._call is not None else 0.0
        if remaining <= 0:
            raise httpx2.ReadTimeout("The call has no time left")
        return min(wait, remaining)

    def _send(self, message: bytes, wait: float) -> None:
        self.sock.settimeout(self._within(wait))
        try:
            self.sock.sendall(message)
        except TimeoutError as error:
            raise httpx2.WriteTimeout("The request could not be sent in time") from error
        except OSError:
            pass  # the server may have refused early: reading returns its answer or the error

    def _receive(self, *, wait: bool = True) -> None:
        if self._fault is not None:
            raise httpx2.RemoteProtocolError("The answer is not HTTP/1.1") from self._fault
        try:
            # 0 is non-blocking; with a time-out, Python polls first, whatever the flags.
            self.sock.settimeout(self._within(self._read_wait) if wait else 0)
            data = self.sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            raise
        except TimeoutError as error:
            raise httpx2.ReadTimeout("The model was silent for too long") from error
        except OSError as error:
            raise httpx2.ReadError("The connection broke") from error
        if data:
            self.answer_started = True
            self._received += len(data)
            if self._call is not None and self._received > MAX_HEAD_BYTES + self._call.answer_bytes:
                raise AnswerRefused("The model's answer is too large")
            self._parse(data)
        elif self._ends_with_close:
            self._complete = True
        else:
            raise httpx2.RemoteProtocolError("The connection was closed before the answer was whole")

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._keep_alive, self._fault = False, error  # raised by the next read: data before it is valid

    # --- parser callbacks ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("an answer nobody asked for")  # caught in _parse: the connection is not reused

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:
            return  # trailers are ignored
        name = name.lower()
        if name in FRAMING:
            self._framed = True
        elif name in READ:
            self.headers.append((name, value))
        elif name in LIMITS:
            self.limits = self.limits or {}
            self.limits[name] = value

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers.clear()  # interim answer (1xx): the final one follows
            self.limits = None
            self._framed = False
            return
        self._has_head = True
        self._keep_alive = self._parser.should_keep_alive()
        self._ends_with_close = not self._framed

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._complete = self._has_head
