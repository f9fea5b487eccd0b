"""The HTTP transport under the official SDK: a last-in-first-out pool of keep-alive connections.

The SDK's own pool looks through every connection on every request, which costs more than the request itself
with hundreds open, and it cannot wake a thread that waits for the model. See docs/adr/0002.

Make it after the fork: sockets and locks do not survive one. Neither proxies nor Unix sockets.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cached_property
from typing import Any, NamedTuple, cast

import httpx2

from service.llm.client import ModelCall
from service.llm.wire import Wire

IDLE_SECONDS = 55.0  # below the 60 s after which most servers and balancers close
LONGEST_SECONDS = 600.0  # of a request that belongs to no call, and of any wait nobody bounded
TCP_OPTIONS = {"TCP_NODELAY": 1, "TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 60, "TCP_KEEPCNT": 5}

_CALL: ContextVar[ModelCall | None] = ContextVar("model_call", default=None)


class carrying:
    """Requests sent in here, by this thread, belong to `call`: its deadline holds and its abort reaches them."""

    def __init__(self, call: ModelCall) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._token = _CALL.set(self._call)

    def __exit__(self, *_: object) -> None:
        _CALL.reset(self._token)


class Origin(NamedTuple):
    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, url: httpx2.URL) -> Origin:
        return cls(url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80))


class Waits(NamedTuple):
    """The longest waits of one request, in seconds."""

    connect: float
    read: float
    write: float
    pool: float

    @classmethod
    def of(cls, request: httpx2.Request) -> Waits:
        given = request.extensions.get("timeout") or {}
        waits = [given.get(name) for name in cls._fields]
        return cls(*[LONGEST_SECONDS if wait is None else wait for wait in waits])


class ModelTransport(httpx2.BaseTransport):
    """Thread-safe. At most `max_connections` requests at once; the next one waits its pool time-out.

    Raises httpx2's errors, which the SDK maps. A request whose kept connection turns out to be closed, before
    any byte of the answer, is sent once more on a new one.
    """

    def __init__(self, max_connections: int) -> None:
        self._places = threading.BoundedSemaphore(max_connections)
        self._idle: dict[Origin, deque[Wire]] = {}
        self._lock = threading.Lock()
        self._closed = False

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return httpx2.create_ssl_context()  # the operating system's roots, as the SDK's own transport

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        call = _CALL.get() or ModelCall(time.monotonic() + LONGEST_SECONDS)
        waits, origin, message = Waits.of(request), Origin.of(request.url), _message(request)
        if not self._places.acquire(timeout=min(waits.pool, call.remaining())):
            raise httpx2.PoolTimeout("Every connection to the model is taken")
        try:
            wire = self._answered(origin, message, call, waits)
        except BaseException:
            self._places.release()
            raise
        body = ModelBody(wire, lambda: self._give_back(origin, wire))
        response = ModelResponse(wire.status, headers=wire.headers, stream=body)
        response.headers.encoding = "iso-8859-1"  # reads any byte; else httpx2 tries out which it might be
        return response

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for wires in idle.values():
            for wire in wires:
                wire.close()

    def _answered(self, origin: Origin, message: bytes, call: ModelCall, waits: Waits) -> Wire:
        """A connection on which the head of the answer has arrived."""
        wire = self._take(origin)
        if wire is not None:
            try:
                wire.ask(message, call, waits.read, waits.write)
                return wire
            except (httpx2.NetworkError, httpx2.RemoteProtocolError):
                if wire.heard or call.aborted:
                    raise
        wire = Wire(self._connect(origin, call, waits.connect))
        wire.ask(message, call, waits.read, waits.write)
        return wire

    def _take(self, origin: Origin) -> Wire | None:
        """The connection used last, so that those not needed fall idle; closed ones are dropped on the way."""
        while True:
            with self._lock:
                wires = self._idle.get(origin)
                if not wires:
                    return None
                wire = wires.pop()
            if time.monotonic() - wire.idle_since < IDLE_SECONDS and wire.quiet:
                return wire
            wire.close()

    def _give_back(self, origin: Origin, wire: Wire) -> None:
        expired: list[Wire] = [] if wire.reusable else [wire]
        if wire.reusable:
            wire.rest()
            with self._lock:
                wires = self._idle.setdefault(origin, deque())
                while wires and wire.idle_since - wires[0].idle_since > IDLE_SECONDS:
                    expired.append(wires.popleft())
                (expired if self._closed else wires).append(wire)
        for old in expired:
            old.close()
        self._places.release()

    def _connect(self, origin: Origin, call: ModelCall, wait: float) -> socket.socket:
        wait = max(0.001, min(wait, call.remaining()))
        try:
            sock = socket.create_connection((origin.host, origin.port), timeout=wait)
        except OSError as error:
            raise _connect_error(error) from error
        try:
            _tune(sock)
            if origin.scheme == "https":
                sock = self._tls.wrap_socket(sock, server_hostname=origin.host, do_handshake_on_connect=False)
                call.attach(sock)
                sock.do_handshake()
        except OSError as error:
            call.detach()
            sock.close()
            raise _connect_error(error) from error
        return sock


class ModelHttp(httpx2.Client):
    """An httpx2 client over one transport, without what the SDK makes no use of: defaults to merge, authentication,
    cookies, redirects. They cost as much as the exchange itself."""

    def __init__(self, transport: ModelTransport) -> None:
        super().__init__(transport=transport, trust_env=False)
        self._model = transport

    def build_request(self, method: str, url: httpx2.URL | str, **parts: Any) -> httpx2.Request:
        simple = {name: value for name, value in parts.items() if value is not None}
        timeout = simple.pop("timeout", None)
        if not isinstance(timeout, httpx2.Timeout):
            timeout = httpx2.Timeout(timeout)
        extensions = {**simple.pop("extensions", {}), "timeout": timeout.as_dict()}
        content = simple.pop("content", None)
        if not isinstance(content, bytes):
            return httpx2.Request(method, url, extensions=extensions, content=content, **simple)
        # As a stream: for content, httpx2 puts the headers together twice, only to add these two.
        body = httpx2.ByteStream(content)
        request = httpx2.Request(method, url, extensions=extensions, stream=body, **simple)
        request.headers.encoding = "utf-8"  # the SDK's; else httpx2 tries out which it might be
        request.headers["Content-Length"] = str(len(content))
        return request

    def send(self, request: httpx2.Request, *, stream: bool = False, **_: Any) -> httpx2.Response:
        response = self._model.handle_request(request)
        response.request = request
        if not stream:
            try:
                response.read()
            finally:
                response.close()
        return response


class ModelResponse(httpx2.Response):
    """A response whose body is read without the generators that unpack it, where it is not packed."""

    def read(self) -> bytes:
        if self.is_closed or self.is_stream_consumed or "content-encoding" in self.headers:
            return super().read()
        self.is_stream_consumed = True
        try:
            self._content = b"".join(cast(httpx2.SyncByteStream, self.stream))  # where httpx2 keeps it too
        finally:
            self.close()
        return self._content


class ModelBody(httpx2.SyncByteStream):
    """A body that gives its connection back once, when it is closed, whole or not."""

    def __init__(self, wire: Wire, give_back: Callable[[], None]) -> None:
        self.wire = wire
        self._give_back: Callable[[], None] | None = give_back

    def __iter__(self) -> Iterator[bytes]:
        return self.wire.body()

    def close(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


def _message(request: httpx2.Request) -> bytes:
    """The request as it goes over the wire. The SDK sends bodies of a known length only."""
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    if "Host" not in request.headers:
        lines.append(b"Host: " + request.url.netloc)
    lines += [name + b": " + value for name, value in request.headers.raw]
    head = b"\r\n".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1:
        raise httpx2.LocalProtocolError("A header holds a line break")
    return head + b"\r\n\r\n" + request.read()


def _tune(sock: socket.socket) -> None:
    """No waiting for more to send, and probes that notice a dead peer while the model thinks for minutes."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in TCP_OPTIONS.items():
        if hasattr(socket, name):  # the names differ between Linux and macOS
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _connect_error(error: OSError) -> httpx2.TransportError:
    if isinstance(error, TimeoutError):
        return httpx2.ConnectTimeout("The model's address did not answer in time")
    return httpx2.ConnectError("The model's address cannot be reached")
