"""HTTP transport under the official SDK: a last-in-first-out pool of keep-alive connections.

The SDK's own pool scans every connection on every request, which costs more than the request itself with hundreds open,
and it cannot wake a thread that waits for the model. See docs/adr/0002.

Create it after the fork: sockets and locks do not survive one.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from contextvars import ContextVar
from typing import NamedTuple

import httpx2

from service.infra.places import Places
from service.llm.client import ModelCall
from service.llm.connect import Connector, Origin, Proxy
from service.llm.wire import AnswerRefused, Wire

IDLE_SECONDS = 55.0  # below the 60 s after which most servers and load balancers close
MAX_SECONDS = 600.0  # for a request without a call, and for any unset timeout

MAX_ERROR_BYTES = 64 * 1024  # read of the body of an error, which has a sentence or two
ENCODING = b"content-encoding"

_CALL: ContextVar[ModelCall | None] = ContextVar("model_call", default=None)


class carrying:
    """Context manager that binds this thread's requests to `call`: its deadline and its abort apply to them."""

    def __init__(self, call: ModelCall) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._token = _CALL.set(self._call)

    def __exit__(self, *_: object) -> None:
        _CALL.reset(self._token)


class Waits(NamedTuple):
    """Timeouts of one request, in seconds."""

    connect: float
    read: float
    write: float
    pool: float

    @classmethod
    def of(cls, request: httpx2.Request) -> Waits:
        given = request.extensions.get("timeout") or {}
        waits = [given.get(name) for name in cls._fields]
        return cls(*[MAX_SECONDS if wait is None else wait for wait in waits])


class PreparedRequest(NamedTuple):
    """Request that may be sent many times: where to, and its head, but for the headers that change."""

    origin: Origin
    head: bytes

    def message(self, body: bytes, headers: bytes = b"") -> bytes:
        """Serialise the request with its body; `headers` are further lines, each with its end."""
        return b"%b%b\r\n%b" % (self.head, headers, body)


class ModelTransport(httpx2.BaseTransport):
    """Transport for at most `max_connections` requests at once; thread-safe. Further ones wait for the pool time-out.

    Raises httpx2's errors, which the SDK maps. A billable request is sent once: if a kept connection closes under it,
    the server may have read it. Any other request is sent once more, on a new connection.
    """

    def __init__(self, max_connections: int, proxy: Proxy | None = None) -> None:
        self.places = Places(max_connections)
        self._connector = Connector(proxy)
        self._proxy = proxy
        self._idle: dict[Origin, deque[Wire]] = {}
        self._lock = threading.Lock()
        self._closed = False

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        head, body = self.prepare(request), request.read()
        answer = self.send(head.origin, head.message(body), _CALL.get() or _unknown_call(), Waits.of(request))
        response = httpx2.Response(answer.status, headers=answer.headers, stream=answer)
        response.headers.encoding = "iso-8859-1"  # decodes any byte; otherwise httpx2 probes encodings
        return response

    def prepare(self, request: httpx2.Request, without: Collection[bytes] = ()) -> PreparedRequest:
        """Serialise the head of a request, `without` these headers (in lower case)."""
        origin = Origin.of(request.url)
        proxy = self._proxy if origin.scheme == "http" else None
        return PreparedRequest(origin, _head(request, proxy, without))

    def send(self, origin: Origin, message: bytes, call: ModelCall, waits: Waits) -> ModelAnswer:
        """Send a request; return its answer, to be closed, once its head has arrived."""
        if not self.places.acquire(min(waits.pool, call.remaining())):
            raise httpx2.PoolTimeout("Every connection to the model is taken")
        try:
            wire = self._answered(origin, message, call, waits)
            call.progress.limits = wire.limits
            return ModelAnswer(wire, _encoded(wire), lambda: self._give_back(origin, wire))
        except BaseException:
            self.places.release()
            raise

    def close(self) -> None:
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, {}
        for wires in idle.values():
            for wire in wires:
                wire.close()

    def _answered(self, origin: Origin, message: bytes, call: ModelCall, waits: Waits) -> Wire:
        """Send the request and return its connection once the head of the answer has arrived."""
        wire = self._take(origin)
        if wire is not None:
            try:
                wire.ask(message, call, waits.read, waits.write)
                return wire
            except (httpx2.NetworkError, httpx2.RemoteProtocolError):
                if wire.answer_started or call.aborted or call.progress.billable:
                    raise
        wire = Wire(self._connector.connect(origin, call, waits.connect))
        wire.ask(message, call, waits.read, waits.write)
        return wire

    def _take(self, origin: Origin) -> Wire | None:
        """Take the most recently used idle connection, so that surplus ones expire; close dead ones on the way."""
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
        self.places.release()


class ModelAnswer(httpx2.SyncByteStream):
    """Answer whose body is read as it arrives; close returns its connection to the pool, once, read fully or not.

    The body of an error that is `encoded` is left out: status and headers suffice.
    """

    def __init__(self, wire: Wire, encoded: bool, give_back: Callable[[], None]) -> None:
        self.wire = wire
        self.decode: Callable[[bytes], bytes] | None = None  # of a body in another framing, piece by piece
        self.status = wire.status
        self.headers = [one for one in wire.headers if one[0] != ENCODING] if encoded else wire.headers
        self._encoded = encoded
        self._give_back: Callable[[], None] | None = give_back

    def __iter__(self) -> Iterator[bytes]:
        body = iter(()) if self._encoded else self.wire.body()
        return body if self.decode is None else map(self.decode, body)

    def of_error(self) -> bytes:
        """Read the body of an error as far as it comes, within `MAX_ERROR_BYTES`: the status is what counts."""
        read = b""
        with suppress(httpx2.HTTPError):
            for piece in self:
                read += piece
                if len(read) > MAX_ERROR_BYTES:
                    break
        return read

    def arrived(self) -> bytes:
        """Read what is available without blocking; see `Wire.arrived`."""
        data = self.wire.arrived()
        return data if self.decode is None else self.decode(data)

    @property
    def complete(self) -> bool:
        return self.wire.complete

    def drain(self, seconds: float) -> bytes:
        """Read on to the end, so that the connection can be reused, and return it; see `Wire.drain`."""
        data = self.wire.drain(seconds)
        return data if self.decode is None else self.decode(data)

    def header(self, name: bytes) -> str | None:
        """Return a header that `Wire` keeps; its name is in lower case."""
        return next((value.decode("iso-8859-1") for key, value in self.headers if key == name), None)

    @property
    def request_id(self) -> str | None:
        """Id of the request, by which its provider finds it."""
        return self.header(b"request-id") or self.header(b"x-amzn-requestid")

    def close(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            give_back()


def _unknown_call() -> ModelCall:
    """Make a call for a request outside `carrying`: bounded, and never sent twice."""
    call = ModelCall(time.monotonic() + MAX_SECONDS)
    call.progress.billable = True
    return call


def _encoded(wire: Wire) -> bool:
    """Return whether the body is compressed, unrequested. Raises `AnswerRefused` for an unread successful answer."""
    encoded = any(name == ENCODING and value.lower() != b"identity" for name, value in wire.headers)
    if encoded and wire.status < 300:
        wire.close()
        raise AnswerRefused("The model sent a compressed answer")
    return encoded


def _head(request: httpx2.Request, proxy: Proxy | None, without: Collection[bytes]) -> bytes:
    """Serialise the head, in absolute form for a proxy. The request's body must have a known length."""
    target = request.url.raw_path if proxy is None else str(request.url).encode("ascii")
    lines = [b"%b %b HTTP/1.1" % (request.method.encode("ascii"), target)]
    if "Host" not in request.headers:
        lines.append(b"Host: " + request.url.netloc)
    if proxy is not None and proxy.authorization:
        lines.append(b"Proxy-Authorization: " + proxy.authorization.encode())
    lines += [name + b": " + value for name, value in request.headers.raw if name.lower() not in without]
    head = b"\r\n".join(lines)
    if not head.count(b"\r") == head.count(b"\n") == len(lines) - 1:
        raise httpx2.LocalProtocolError("A header holds a line break")
    return head + b"\r\n"
