"""HTTP exchange: a request, and methods to answer whole, in chunks, or faulty on purpose."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import cached_property
from http import HTTPStatus
from urllib.parse import parse_qs

REASONS = {status.value: status.phrase for status in HTTPStatus} | {529: "Overloaded"}


@dataclass
class Request:
    """HTTP request. `too_large`: the body was read and discarded."""

    method: str = ""
    target: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    head_size: int = 0
    too_large: bool = False
    keep_alive: bool = True
    chunked: bool = True

    @cached_property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    @cached_property
    def path(self) -> str:
        return self.target.partition(b"?")[0].decode("latin-1")

    @cached_property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(self.target.partition(b"?")[2].decode("latin-1"))


class Exchange:
    """Response writer. `started`: some bytes were written; `finished`: a whole answer was."""

    def __init__(self, request: Request, transport: asyncio.Transport, writable: asyncio.Event) -> None:
        self.request = request
        self.started = False
        self.finished = False
        self._transport = transport
        self._writable = writable

    def send(self, status: int, body: bytes, headers: dict[str, str], content_type: str) -> None:
        """Write a whole answer."""
        self._transport.write(self._head(status, content_type, headers, len(body)) + body)
        self.finished = True

    def send_part(self, status: int, body: bytes, headers: dict[str, str], content_type: str) -> None:
        """Write the head and half of the body, then close, to simulate a lost connection."""
        self._transport.write(self._head(status, content_type, headers, len(body)) + body[: len(body) // 2])
        self.close()

    def begin(self, headers: dict[str, str]) -> None:
        """Start an event stream."""
        self._transport.write(self._head(200, "text/event-stream; charset=utf-8", headers, None))

    async def write(self, data: bytes) -> None:
        """Write one chunk; waits while the client does not read (backpressure)."""
        if self.request.chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._transport.write(data)
        if not self._writable.is_set():
            await self._writable.wait()

    def end(self) -> None:
        """End an event stream cleanly."""
        if self.request.chunked:
            self._transport.write(b"0\r\n\r\n")
            self.finished = True

    def close(self) -> None:
        """Close the connection after the bytes written so far, even mid-answer."""
        self._transport.close()

    def _head(self, status: int, content_type: str, headers: dict[str, str], length: int | None) -> bytes:
        self.started = True
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}", f"content-type: {content_type}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if length is not None:
            lines.append(f"content-length: {length}")
        elif self.request.chunked:
            lines += ["transfer-encoding: chunked", "cache-control: no-cache"]
        if not self.request.keep_alive:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
