"""A run's events as server-sent events."""

from __future__ import annotations

import socket
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress

import orjson
from flask import Response, request

from service.runs.bulkhead import Permit
from service.runs.events.outbox import Listener
from service.runs.result import shown
from service.text.numerals import whole_number
from service.types import Event, RunEvent

HEARTBEAT = b": keep-alive\n\n"
RETRY = b"retry: 1000"  # milliseconds
HEADERS = {"X-Accel-Buffering": "no"}


def encode(run_id: str, events: Sequence[RunEvent]) -> bytes:
    """Encode `id`, `event` and `data` of each event; a heartbeat when there is none.

    `reconnect` is of the stream and not of the run: it has no `id`, and says how long to wait instead.
    """
    if not events:
        return HEARTBEAT
    name = run_id.encode()
    return b"".join(
        b"%b\nevent: %b\ndata: %b\n\n"
        % (
            RETRY if event.name is Event.RECONNECT else b"id: %b:%d" % (name, event.seq),
            event.name.encode(),
            orjson.dumps(shown(event.data)),
        )
        for event in events
    )


class ChunkWriter:
    """Writes events to a client's connection beside the server, as chunks of a response that is under way."""

    def __init__(self, sock: socket.socket, run_id: str) -> None:
        self._sock = sock
        self._run_id = run_id
        self._rest = b""

    def write(self, events: Sequence[RunEvent]) -> None:
        """As much as the connection takes without waiting; the rest has to go before anything else does."""
        data = encode(self._run_id, events)
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
        """What is left of a chunk that was begun, waiting for the client as long as the server does."""
        rest, self._rest = self._rest, b""
        if rest:
            self._sock.sendall(rest)


def _writer(run_id: str) -> ChunkWriter | None:
    """None where the response does not go out in chunks over a plain socket."""
    sock = request.environ.get("gunicorn.socket")
    chunked = request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
    return ChunkWriter(sock, run_id) if type(sock) is socket.socket and chunked else None


def event_stream(
    run_id: str,
    batches: Generator[list[RunEvent]],
    place: Permit | None,
    gone: Callable[[], None] = lambda: None,
    listener: Listener | None = None,
) -> Response:
    """Stream batches of events; `gone` is called when the client left before the last one.

    `place` is given back once the response is closed, whether it was read or not.
    What is told after the first batch may be written past this, by way of `listener`.
    """
    writer = _writer(run_id) if listener is not None else None

    def body() -> Iterator[bytes]:
        ended = False
        try:
            for events in batches:
                if writer is not None:
                    writer.finish()
                yield encode(run_id, events)
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

    response = Response(body(), mimetype="text/event-stream", headers=HEADERS)
    if place is not None:
        response.call_on_close(place.give)
    return response


def last_seen(header: str | None, run_id: str) -> int:
    """The number in `Last-Event-ID: <run_id>:<seq>`; 0 when there is none, or it is of another run."""
    if not header:
        return 0
    run, _, seq = header.strip().rpartition(":")
    return (whole_number(seq) or 0) if run == run_id else 0
