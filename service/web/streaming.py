"""Streamed responses: a run's events, encoded by a lens, as chunks of a response under way."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from typing import Protocol

from flask import Response, request

from service.runs.bulkhead import Permit
from service.runs.events.outbox import ClientConnection, Listener
from service.types import RunEvent
from service.web.current import services

HEADERS = {"X-Accel-Buffering": "no"}


class Lens(Protocol):
    """Encoder of one run's events for one client, in the format of its API. May keep state between calls."""

    mimetype: str
    heartbeat: bytes  # sent after a period without events

    def encode(self, events: Sequence[RunEvent]) -> bytes:
        """Encode one or more events; empty if the format cannot express them."""


class Writer(ClientConnection, Protocol):
    """Connection that both the publisher and the thread of a run write to."""

    def finish(self) -> None:
        """Write the remainder of an earlier `write`; blocks."""


class ChunkWriter:
    """Writes events to a client's socket directly, as HTTP chunks; only `finish` blocks."""

    def __init__(self, sock: socket.socket, lens: Lens) -> None:
        self._sock = sock
        self._lens = lens
        self._rest = b""

    def write(self, events: Sequence[RunEvent]) -> None:
        """Send as much as the socket accepts at once; an empty list is a heartbeat. Call only if `rest()` is False."""
        if data := _encoded(self._lens, events):  # an empty chunk would end the response
            self._rest += b"%X\r\n%b\r\n" % (len(data), data)
        self.rest()

    def rest(self) -> bool:
        """Send the remainder, without blocking. True: some still remains."""
        if self._rest:
            with suppress(BlockingIOError):
                sent = self._sock.send(self._rest, socket.MSG_DONTWAIT)
                self._rest = self._rest[sent:]
        return bool(self._rest)

    def finish(self) -> None:
        """Send the remainder of an incomplete chunk, blocking for the client as long as the server does."""
        rest, self._rest = self._rest, b""
        if rest:
            self._sock.sendall(rest)


def stream_response(
    lens: Lens,
    batches: Generator[list[RunEvent]],
    place: Permit | None,
    on_disconnect: Callable[[], None] = lambda: None,
    listener: Listener | None = None,
    opening: bytes = b"",
) -> Response:
    """Stream batches of events; `on_disconnect` is called when the client left before the last one.

    `opening` is sent at once, before the first batch.

    `place` is released once the response is closed, whether it was read or not. Events after the first batch may be
    written past this generator, through `listener`.
    """
    writer = _writer(lens) if listener is not None else None

    told = services().infra.metrics.stream

    def body() -> Iterator[bytes]:
        told(1)
        try:
            if opening:
                yield opening
            with closing(unwritten(batches, writer, on_disconnect, listener)) as rest:
                for events in rest:
                    yield _encoded(lens, events)
        finally:
            told(-1)
            if place is not None:
                place.give()

    response = Response(body(), mimetype=lens.mimetype, headers=HEADERS)
    if place is not None:
        response.call_on_close(place.give)
    return response


def unwritten(
    batches: Generator[list[RunEvent]],
    writer: Writer | None,
    on_disconnect: Callable[[], None],
    listener: Listener | None,
) -> Generator[list[RunEvent]]:
    """Yield the batches that the caller is to write: after the first, `listener` may write events to the client itself.

    Closed before its end, it calls `on_disconnect`, and executes the rest of a run that `batches` drives.
    """
    ended = False
    try:
        for events in batches:
            if writer is not None:
                writer.finish()
            yield events
            ended = bool(events) and events[-1].name.is_last
            if listener is not None:
                listener.on_disconnect, listener.writer = on_disconnect, writer
        if writer is not None:
            writer.finish()
        ended = True
    finally:
        if not ended:
            on_disconnect()
        batches.close()


def _encoded(lens: Lens, events: Sequence[RunEvent]) -> bytes:
    return lens.encode(events) if events else lens.heartbeat


def _writer(lens: Lens) -> ChunkWriter | None:
    """Create a writer for the request's socket; None if the response is not sent in chunks over a plain socket."""
    sock = request.environ.get("gunicorn.socket")
    chunked = request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
    return ChunkWriter(sock, lens) if type(sock) is socket.socket and chunked else None
