"""The Messages API stand-in of the benchmark: canned bytes over plain sockets, so that it is never the bottleneck.

`python -m benchmarks.upstream --port 9000`. What a call is like, its prompt says, because a prompt survives every
service in between: `[bench wait=2000 deltas=100 every=20 first=300]`, all times in milliseconds. Without a marker the
answer comes at once. One that is not streamed calls the tool of `benchmarks/agents/clerk` once, if that is offered.
`GET /stats` tells what was asked and when clients left, by the monotonic clock that all processes of a machine share;
`POST /stats` begins anew. It ends with the process that started it.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import json
import os
import re
import time
from typing import Any, NamedTuple, cast

PIECE = b"piece"  # the word that every delta holds once
MARKER = re.compile(rb"\[bench ([a-z0-9= ]*)\]")
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
STREAMED = re.compile(rb'"stream": ?true')
MODEL = re.compile(rb'"model": ?"([\w.:/-]{1,100})"')
TICK = 0.002  # seconds: deltas that are due within one go out together
MAX_DELTAS, MAX_MS = 1_000, 600_000
USAGE = {
    "input_tokens": 24,
    "output_tokens": 100,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "service_tier": "standard",
}


class Wish(NamedTuple):
    """How one call is answered: milliseconds before the answer, or before the first delta and between deltas."""

    wait: int = 0
    deltas: int = 10
    every: int = 0
    first: int = 0


def wish_of(body: bytes) -> Wish:
    """What the last marker of a request says: a conversation may hold earlier ones."""
    found = MARKER.findall(body)
    if not found:
        return Wish()
    pairs = (pair.split("=") for pair in found[-1].decode().split())
    wish = Wish(**{name: min(int(value), MAX_MS) for name, value in pairs})
    return wish._replace(deltas=max(1, min(wish.deltas, MAX_DELTAS)))


# --- canned bytes -----------------------------------------------------------------------------------------


def _message(content: list[dict[str, Any]], stop: str | None, usage: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": "msg_bench0000000000000000",
        "type": "message",
        "role": "assistant",
        "model": "MODEL",
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": usage,
    }


def _event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def _delta(number: int) -> bytes:
    text = {"type": "text_delta", "text": f"{PIECE.decode()} {number:04d} "}
    return _chunk(_event("content_block_delta", index=0, delta=text))


def _json_answer(body: bytes, kind: bytes = b"application/json") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nrequest-id: req_bench\r\nContent-Length: %d\r\n\r\n"
    return head % (kind, len(body)) + body


WORDS = [{"type": "text", "text": "piece " * 20}]
ANSWER = json.dumps(_message(WORDS, "end_turn", USAGE)).encode()
TOOL = b'"file_note"'  # of `benchmarks/agents/clerk`
_CALL = [{"type": "tool_use", "id": "toolu_bench", "name": "file_note", "input": {"text": "piece"}}]
CALL = json.dumps(_message(_CALL, "tool_use", USAGE)).encode()
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nCache-Control: no-cache\r\n"
    b"request-id: req_bench\r\nTransfer-Encoding: chunked\r\n\r\n"
)
BEGIN = _event("message_start", message=_message([], None, {**USAGE, "output_tokens": 1})) + _event(
    "content_block_start", index=0, content_block={"type": "text", "text": ""}
)
DELTAS = [_delta(number) for number in range(MAX_DELTAS)]
END = (
    _chunk(
        _event("content_block_stop", index=0)
        + _event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": 100},
        )
        + _event("message_stop")
    )
    + b"0\r\n\r\n"
)


# --- the server -------------------------------------------------------------------------------------------


class Upstream:
    """What all connections share: counters, and the deltas that are due."""

    def __init__(self) -> None:
        self.open = 0
        self.reset()
        self._due: list[tuple[float, int, Connection]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._order = 0

    def reset(self) -> None:
        self.calls = self.finished = self.most_open = 0
        self.left: list[float] = []  # when clients went away before their answer was whole

    def stats(self) -> dict[str, Any]:
        names = ("calls", "finished", "open", "most_open", "left")
        return {name: getattr(self, name) for name in names}

    def later(self, at: float, connection: Connection) -> None:
        self._order += 1
        heapq.heappush(self._due, (at, self._order, connection))
        if self._timer is None or at < self._timer.when():
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(self._due[0][0], self._turn) if self._due else None

    def _turn(self) -> None:
        now = asyncio.get_running_loop().time() + TICK
        self._timer = None
        due = []
        while self._due and self._due[0][0] <= now:
            due.append(heapq.heappop(self._due))
        for at, _, connection in due:
            connection.advance(at)
        self._set_timer()


class Connection(asyncio.Protocol):
    """One client's connection: requests one after the other."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._buffer = b""
        self._busy = False  # an answer is under way
        self._next = -1  # the delta that goes out next; -1: the answer is JSON
        self._model = b""
        self._whole = ANSWER
        self._wish = Wish()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._upstream.open += 1
        self._upstream.most_open = max(self._upstream.most_open, self._upstream.open)

    def connection_lost(self, exc: Exception | None) -> None:
        self._upstream.open -= 1
        if self._busy:
            self._upstream.left.append(time.monotonic())
            self._busy = False

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        self._buffer = rest[size:]
        self._answer(head, rest[:size])

    def _answer(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        if method != b"POST" or path == b"/stats":
            if method == b"POST":
                self._upstream.reset()
            known = self._upstream.stats() if path == b"/stats" else {"data": [], "has_more": False}
            self._transport.write(_json_answer(json.dumps(known).encode()))
            return
        if b"count_tokens" in path:
            self._transport.write(_json_answer(b'{"input_tokens": 24}'))
            return
        self._upstream.calls += 1
        self._busy, self._wish = True, wish_of(body)
        self._whole = CALL if TOOL in body and b'"tool_result"' not in body else ANSWER
        model = MODEL.search(body)
        self._model = model[1] if model else b"claude-haiku-5-5"
        now = asyncio.get_running_loop().time()
        self._next = -1
        wait = self._wish.wait
        if STREAMED.search(body):
            self._next, wait = 0, self._wish.first
            self._transport.write(STREAM_HEAD + _chunk(BEGIN.replace(b"MODEL", self._model)))
        if wait:
            self._upstream.later(now + wait / 1000, self)
        else:
            self.advance(now)

    def advance(self, at: float) -> None:
        """Send what is due; `at` is when it should have gone, so that delays do not add up."""
        if not self._busy:
            return
        if self._next < 0:
            self._finish(_json_answer(self._whole.replace(b"MODEL", self._model)))
        elif not self._wish.every:
            self._finish(b"".join(DELTAS[: self._wish.deltas]) + END)
        elif self._next == self._wish.deltas - 1:
            self._finish(DELTAS[self._next] + END)
        else:
            self._transport.write(DELTAS[self._next])
            self._next += 1
            self._upstream.later(at + self._wish.every / 1000, self)

    def _finish(self, data: bytes) -> None:
        self._busy = False
        self._upstream.finished += 1
        self._transport.write(data)


async def serve(port: int, parent: int) -> None:
    upstream = Upstream()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", port, backlog=4096)
    async with server:
        while os.getppid() == parent:
            await asyncio.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upstream", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    asyncio.run(serve(parser.parse_args().port, os.getppid()))


if __name__ == "__main__":
    main()
