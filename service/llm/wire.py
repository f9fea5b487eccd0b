"""One HTTP/1.1 connection to the model: a blocking socket under a C parser, one exchange at a time."""

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

RECEIVE_BYTES = 64 * 1024
MAX_HEAD_BYTES = 64 * 1024
DRAIN_READS = 4
FRAMING = frozenset({b"content-length", b"transfer-encoding"})
# What somebody reads, the SDK included; an answer carries twenty headers, and each costs httpx2 eight calls.
READ = frozenset(
    {
        b"content-type",
        b"content-encoding",
        b"request-id",
        b"retry-after",
        b"retry-after-ms",
        b"x-should-retry",
        b"anthropic-workspace-id",
    }
)


class AnswerRefused(httpx2.RemoteProtocolError):
    """Raised for an answer that is not taken: too large, or compressed. Asking again would bring the same."""


class Wire:
    """A connection that carries one exchange at a time. Not for two threads at once.

    The `ModelCall` of the exchange holds the socket meanwhile, so that its `abort()` wakes a blocked read.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.idle_since = 0.0
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []  # those of `READ`
        self.heard = False  # whether any byte of the answer has arrived
        self._call: ModelCall | None = None
        self._read_wait = 0.0
        self._plain = not isinstance(sock, ssl.SSLSocket)  # which may hold back what it has read
        self._body: list[bytes] = []
        self._fault: Exception | None = None
        self._has_head = self._complete = self._keep_alive = self._ends_with_close = False
        self._framed = False  # whether the head says where the body ends
        self._received = 0  # bytes of this exchange, framing and trailers included
        self._parser = httptools.HttpResponseParser(self)

    @property
    def complete(self) -> bool:
        """All of the answer has arrived."""
        return self._complete

    @property
    def reusable(self) -> bool:
        return self._complete and self._keep_alive

    @property
    def quiet(self) -> bool:
        """An idle connection on which something arrives, if only its end, cannot be used again."""
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        return not poll.poll(0)

    def ask(self, message: bytes, call: ModelCall, read_wait: float, write_wait: float) -> None:
        """Send a request and wait for the head of its answer. Closed when that fails, with an httpx2 error."""
        self.status, self.headers, self._body = 0, [], []
        self.heard = self._has_head = self._complete = self._keep_alive = self._ends_with_close = False
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
        """The body as it arrives, without its transfer coding."""
        while True:
            if self._body:
                pieces, self._body = self._body, []
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if self._complete:
                return
            self._receive()

    def arrived(self) -> bytes:
        """What has come of the body by now, without waiting. Raises as `body` does."""
        with suppress(BlockingIOError, ssl.SSLWantReadError):
            self._receive(wait=False)
            while not self._plain and cast(ssl.SSLSocket, self.sock).pending() and not self._complete:
                self._receive(wait=False)
        pieces, self._body = self._body, []
        return b"".join(pieces)

    def drain(self, seconds: float) -> None:
        """Read on to the end of an answer of which nothing more is wanted, so that the connection can be kept."""
        self._read_wait = seconds
        with suppress(httpx2.HTTPError):
            for _ in range(DRAIN_READS):
                if self._complete:
                    break
                self._receive()
        self._body.clear()

    def rest(self) -> None:
        """The exchange is over and the connection goes to the pool: no abort may touch it from now on."""
        self._let_go()
        self.idle_since = time.monotonic()

    def close(self) -> None:
        self._let_go()  # before the close: the number of a closed socket is soon another's
        self.sock.close()

    def _let_go(self) -> None:
        if self._call is not None:
            self._call.detach()
            self._call = None

    def _within(self, wait: float) -> float:
        """The given wait, cut to what is left of the call: many short waits cannot add up to a long one."""
        left = self._call.remaining() if self._call is not None else 0.0
        if left <= 0:
            raise httpx2.ReadTimeout("The call has no time left")
        return min(wait, left)

    def _send(self, message: bytes, wait: float) -> None:
        self.sock.settimeout(self._within(wait))
        try:
            self.sock.sendall(message)
        except TimeoutError as error:
            raise httpx2.WriteTimeout("The request could not be sent in time") from error
        except OSError:
            pass  # a server may refuse half way and say why: reading tells that, or that it is gone

    def _receive(self, *, wait: bool = True) -> None:
        if self._fault is not None:
            raise httpx2.RemoteProtocolError("The answer is not HTTP/1.1") from self._fault
        try:
            # With 0 it reads what is there; with more Python waits first, whatever the flags.
            self.sock.settimeout(self._within(self._read_wait) if wait else 0)
            data = self.sock.recv(RECEIVE_BYTES)
        except (BlockingIOError, ssl.SSLWantReadError):
            raise
        except TimeoutError as error:
            raise httpx2.ReadTimeout("The model was silent for too long") from error
        except OSError as error:
            raise httpx2.ReadError("The connection broke") from error
        if data:
            self.heard = True
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
            self._keep_alive, self._fault = False, error  # told by the next read: what came before it is good

    # --- what the parser calls ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("an answer nobody asked for")  # _parse: the connection is not used again

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._has_head:
            return  # what comes after the body is a trailer, of no use here
        name = name.lower()
        if name in FRAMING:
            self._framed = True
        elif name in READ:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            self.headers.clear()  # an interim answer: the real one follows
            self._framed = False
            return
        self._has_head = True
        self._keep_alive = self._parser.should_keep_alive()
        self._ends_with_close = not self._framed

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        self._complete = self._has_head
