"""Streamed responses: a run's events through a lens, as chunks of a response that is under way."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from typing import Protocol

from flask import Response, request

from service.runs.bulkhead import Permit
from service.runs.events.outbox import Listener
from service.types import RunEvent

HEADERS = {"X-Accel-Buffering": "no"}


class Lens(Protocol):
    """Encoder of one run's events for one client, in the dialect of its door. It may keep state between calls."""

    mimetype: str
    heartbeat: bytes  # sent when the client has heard nothing for a while

    def encode(self, events: Sequence[RunEvent]) -> bytes:
        """Bytes of one or more events; empty where the dialect has no word for them."""


class ChunkWriter:
    """Write events to a client's socket beside the server, as HTTP chunks; non-blocking but for `finish`."""

    def __init__(self, sock: socket.socket, lens: Lens) -> None:
        self._sock = sock
        self._lens = lens
        self._rest = b""

    def write(self, events: Sequence[RunEvent]) -> None:
        """Send as much as the socket takes at once; an empty list is a heartbeat. Call only when `rest()` is False."""
        if data := _encoded(self._lens, events):  # an empty chunk would end the response
            self._rest += b"%X\r\n%b\r\n" % (len(data), data)
        self.rest()

    def rest(self) -> bool:
        """Send what is left, without waiting. True: some of it still is."""
        if self._rest:
            with suppress(BlockingIOError):
                sent = self._sock.send(self._rest, socket.MSG_DONTWAIT)
                self._rest = self._rest[sent:]
        return bool(self._rest)

    def finish(self) -> None:
        """Send the rest of a chunk that was begun, waiting for the client as long as the server does."""
        rest, self._rest = self._rest, b""
        if rest:
            self._sock.sendall(rest)


def stream_response(
    lens: Lens,
    batches: Generator[list[RunEvent]],
    place: Permit | None,
    gone: Callable[[], None] = lambda: None,
    listener: Listener | None = None,
) -> Response:
    """Stream batches of events; `gone` is called when the client left before the last one.

    `place` is given back once the response is closed, whether it was read or not.
    Events after the first batch may be written past this generator, by way of `listener`.
    """
    writer = _writer(lens) if listener is not None else None

    def body() -> Iterator[bytes]:
        ended = False
        try:
            for events in batches:
                if writer is not None:
                    writer.finish()
                yield _encoded(lens, events)
                ended = bool(events) and events[-1].name.is_last
                if listener is not None:
                    listener.gone, listener.writer = gone, writer
            if writer is not None:
                writer.finish()
            ended = True
        finally:
            try:
                if not ended:
                    gone()
                batches.close()  # a run that is driven by reading it goes on, unheard
            finally:
                if place is not None:
                    place.give()

    response = Response(body(), mimetype=lens.mimetype, headers=HEADERS)
    if place is not None:
        response.call_on_close(place.give)
    return response


def _encoded(lens: Lens, events: Sequence[RunEvent]) -> bytes:
    return lens.encode(events) if events else lens.heartbeat


def _writer(lens: Lens) -> ChunkWriter | None:
    """None where the response does not go out in chunks over a plain socket."""
    sock = request.environ.get("gunicorn.socket")
    chunked = request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
    return ChunkWriter(sock, lens) if type(sock) is socket.socket and chunked else None
