"""The load generator: so many clients at once, each sending one request after another over plain sockets.

What it is to send and how a good answer is recognised, a `Shot` says. An answer that is not good is an error and no
figure: a service that drops half of a stream must not look fast.
"""

from __future__ import annotations

import asyncio
import gc
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from benchmarks.upstream import PIECE

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
LAST_CHUNK = b"\r\n0\r\n\r\n"  # never part of a delta


@dataclass(frozen=True)
class Shot:
    """One kind of request to one server. `request` makes the bytes of the n-th one."""

    port: int
    request: Callable[[int], bytes]
    must: bytes = b""  # what a good answer holds, in its head or its body
    first: bytes = b""  # where the first token begins; empty: not a stream
    end: bytes = b""  # where the last event begins: before it all pieces must have come
    pieces: int = 0  # so many


@dataclass
class Result:
    """What was measured: seconds from sending (or connecting) to the first token and to the whole answer."""

    totals: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


class Call(asyncio.Protocol):
    """One connection, and the answer that is awaited on it."""

    def __init__(self) -> None:
        self.reusable = False
        self.lost = False
        self._answer: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self, request: bytes, first: bytes) -> asyncio.Future[None]:
        """The answer is whole, or the connection gone, when the future is done."""
        self._answer = asyncio.get_running_loop().create_future()
        self.parts: list[bytes] = []
        self.head, self.first_at = b"", 0.0
        self._first, self._tail, self._left, self.whole = first, b"", -1, False
        self.transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        if self._answer is None:
            return
        if not self.head:
            self._tail += data
            self.head, found, data = self._tail.partition(b"\r\n\r\n")
            if not found:
                self.head = b""
                return
            self._tail = b""
            self._begin_body()
        self.parts.append(data)
        if self._first and not self.first_at:
            self._tail += data
            if self._first in self._tail:
                self.first_at = time.perf_counter()
        if self._left >= 0:
            self._left -= len(data)
            self.whole = self._left <= 0
        elif self._chunked and data.endswith(b"\n"):
            ending = data if len(data) >= len(LAST_CHUNK) else b"".join(self.parts[-4:])
            self.whole = ending.endswith(LAST_CHUNK) or ending == LAST_CHUNK[2:]
        if self.whole:
            self._done()

    def _begin_body(self) -> None:
        length = LENGTH.search(self.head)
        self._left = int(length[1]) if length else -1
        self._chunked = CHUNKED.search(self.head) is not None
        self.reusable = not CLOSES.search(self.head) and (self._chunked or length is not None)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost, self.reusable = True, False
        if self.head and self._answer is not None and self._left < 0 and not self._chunked:
            self.whole = True  # the answer ends with the connection
        self._done()

    def _done(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(None)
        self._answer = None


def judge(call: Call, shot: Shot) -> str:
    """Why an answer is no good; empty when it is."""
    status = call.head[9:12].decode(errors="replace")
    body = b"".join(call.parts)
    if not call.head:
        return "connection lost"
    if status != "200":
        code = re.search(rb'"code": ?"(\w+)"', body)
        return f"{status} {code[1].decode() if code else ''}".strip()
    if not call.whole:
        return "cut off"
    if shot.must and shot.must not in call.head and shot.must not in body:
        return f"without {shot.must.decode()}"
    if shot.end:
        told, found, _ = body.partition(shot.end)
        if not found:
            return f"without {shot.end.decode()}"
        if told.count(PIECE) != shot.pieces:
            return f"{told.count(PIECE)} of {shot.pieces} pieces"
    return ""


class Load:
    """One measurement of one kind of request."""

    def __init__(self, shot: Shot, clients: int, requests: int, begin: int, limit: float) -> None:
        self.shot, self.clients, self.left, self.number = shot, clients, requests, begin
        self.ends = time.perf_counter() + limit
        self.result = Result()

    async def run(self, spread: float) -> Result:
        began = time.perf_counter()
        clients = [self._client(spread * n / self.clients) for n in range(self.clients)]
        await asyncio.gather(*clients)
        self.result.seconds = time.perf_counter() - began
        return self.result

    async def _client(self, delay: float) -> None:
        await asyncio.sleep(delay)
        call: Call | None = None
        while self.left > 0:
            self.left -= 1
            self.number += 1
            call = await self._one(call, self.shot.request(self.number))
        if call is not None:
            call.transport.close()

    async def _one(self, call: Call | None, request: bytes) -> Call | None:
        """Ask once; what comes back is the connection if it can be used again."""
        began = time.perf_counter()
        remaining = self.ends - began
        if remaining <= 0:
            self.result.errors["not sent in time"] += 1
            return None
        try:
            async with asyncio.timeout(remaining):
                if call is None or not call.reusable:
                    loop = asyncio.get_running_loop()
                    _, call = await loop.create_connection(Call, "127.0.0.1", self.shot.port)
                await call.ask(request, self.shot.first)
        except TimeoutError:
            self.result.errors["no answer in time"] += 1
            if call is not None:
                call.transport.abort()
            return None
        except OSError as error:
            self.result.errors[type(error).__name__] += 1
            return None
        self._note(call, began, time.perf_counter())
        if call.reusable:
            return call
        call.transport.close()
        return None

    def _note(self, call: Call, began: float, ended: float) -> None:
        fault = judge(call, self.shot)
        if fault:
            self.result.errors[fault] += 1
            return
        self.result.totals.append(ended - began)
        if call.first_at:
            self.result.firsts.append(call.first_at - began)


def run(
    shot: Shot, *, clients: int, requests: int, begin: int = 0, limit: float = 60.0, spread: float = 0.0
) -> Result:
    """`requests` in all by `clients` at once, numbered from `begin`; over within `limit` seconds.

    `spread`: the clients begin evenly over so many seconds, so that a moment of the measurement is like another.
    """
    gc.collect()
    gc.disable()
    try:
        return asyncio.run(Load(shot, clients, requests, begin, limit).run(spread))
    finally:
        gc.enable()
