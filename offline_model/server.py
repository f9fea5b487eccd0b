"""Minimal HTTP/1.1 server on asyncio and httptools: keep-alive, chunked answers, time-outs.

One `Connection` per socket reads requests; one task per request answers through an `Exchange`. A disconnect cancels
the task at once, also during a sleep.
"""

from __future__ import annotations

import asyncio
import resource
import time
from collections import deque
from collections.abc import Awaitable, Callable

import httptools

from offline_model.exchange import Exchange, Request

READ_TIMEOUT = 30.0  # seconds for a whole request to arrive
IDLE_TIMEOUT = 120.0  # seconds of an idle keep-alive connection
WRITE_TIMEOUT = 60.0  # seconds without the client reading
MAX_BODY = 32 * 1024 * 1024  # bytes, as upstream
MAX_DRAINED = 8 * MAX_BODY  # bytes of an oversized body that are read and discarded
MAX_HEADERS = 64 * 1024
MAX_PIPELINED = 64

Handler = Callable[[Exchange], Awaitable[None]]


class Server:
    """Listening socket with its connections, and a sweep that closes stalled ones."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.connections: set[Connection] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port, chosen by the system for 0."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one file per stream
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Connection(self), host, port, backlog=4096)
        self._sweeper = loop.create_task(self._sweep())
        return int(self._server.sockets[0].getsockname()[1])

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            now = time.monotonic()
            for connection in [c for c in self.connections if c.deadline and c.deadline < now]:
                connection.time_out()


class Connection(asyncio.Protocol):
    """Connection: parses requests from one socket, which are answered one at a time, in order."""

    transport: asyncio.Transport

    def __init__(self, server: Server) -> None:
        self.server = server
        self.parser = httptools.HttpRequestParser(self)
        self.waiting: deque[Request] = deque()
        self.task: asyncio.Task[None] | None = None
        self.deadline = 0.0
        self.writable = asyncio.Event()
        self.writable.set()
        self._request: Request | None = None

    # asyncio.Protocol callbacks

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server.connections.add(self)
        self.deadline = time.monotonic() + READ_TIMEOUT

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.connections.discard(self)
        self.waiting.clear()
        if self.task is not None:
            self.task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.transport.close()
        except httptools.HttpParserError:
            self.transport.write(
                b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()

    def pause_writing(self) -> None:
        self.writable.clear()
        self.deadline = time.monotonic() + WRITE_TIMEOUT

    def resume_writing(self) -> None:
        self.writable.set()
        self.deadline = 0.0

    # httptools callbacks

    def on_message_begin(self) -> None:
        self._request = Request()
        if self.task is None:
            self.deadline = time.monotonic() + READ_TIMEOUT

    def on_url(self, url: bytes) -> None:
        assert self._request is not None
        self._request.target += url
        self._grow_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        assert self._request is not None
        self._request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._grow_head(len(name) + len(value))

    def on_headers_complete(self) -> None:
        assert self._request is not None
        if self._request.headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        request = self._request
        assert request is not None
        request.size += len(body)
        if request.size <= MAX_BODY:
            request.chunks.append(body)
            return
        # Read and discard: closing while the client still writes would lose the 413.
        request.chunks.clear()
        request.too_large = True
        if request.size > MAX_DRAINED:
            self.transport.abort()

    def on_message_complete(self) -> None:
        request = self._request
        assert request is not None
        request.method = self.parser.get_method().decode("ascii")
        request.keep_alive = self.parser.should_keep_alive()
        request.chunked = self.parser.get_http_version() != "1.0"
        self._request = None
        self.waiting.append(request)
        if len(self.waiting) > MAX_PIPELINED:
            self.transport.abort()
        elif self.task is None:
            self._next()

    def _grow_head(self, size: int) -> None:
        assert self._request is not None
        self._request.head_size += size
        if self._request.head_size > MAX_HEADERS:
            self.transport.abort()

    # answering

    def _next(self) -> None:
        """Begin the next queued request, if any."""
        self.task = None
        if self.transport.is_closing():
            return
        if self.waiting:
            self.deadline = 0.0
            exchange = Exchange(self.waiting.popleft(), self.transport, self.writable)
            self.task = asyncio.get_running_loop().create_task(self._answer(exchange))
        elif self._request is None:
            self.deadline = time.monotonic() + IDLE_TIMEOUT

    async def _answer(self, exchange: Exchange) -> None:
        await self.server.handler(exchange)  # raises only CancelledError
        if not exchange.request.keep_alive or not exchange.finished:
            self.transport.close()
        self._next()

    def time_out(self) -> None:
        """Close a stalled connection, by the sweep: request, idle or write time-out."""
        if self._request is not None and self.task is None:
            self.transport.write(
                b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()
        else:
            self.transport.abort()
