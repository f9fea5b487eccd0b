"""A run's events as server-sent events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import orjson
from flask import Response

from service.types import RunEvent

HEARTBEAT = b": keep-alive\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def encode(run_id: str, events: Sequence[RunEvent]) -> bytes:
    """`id`, `event` and `data` of each event; a heartbeat when there is none."""
    if not events:
        return HEARTBEAT
    return b"".join(
        b"id: %b:%d\nevent: %b\ndata: %b\n\n"
        % (run_id.encode(), event.seq, event.name.encode(), orjson.dumps(event.data))
        for event in events
    )


def event_stream(run_id: str, batches: Iterator[list[RunEvent]], gone: Callable[[], None]) -> Response:
    """Stream batches of events; `gone` is called when the client left before the last one."""

    def body() -> Iterator[bytes]:
        ended = False
        try:
            for events in batches:
                yield encode(run_id, events)
                ended = bool(events) and events[-1].name.is_last
        finally:
            if not ended:
                gone()

    return Response(body(), mimetype="text/event-stream", headers=HEADERS)


def last_seen(header: str | None, run_id: str) -> int:
    """The number in `Last-Event-ID: <run_id>:<seq>`; 0 when there is none, or it is of another run."""
    if not header:
        return 0
    run, _, seq = header.strip().rpartition(":")
    return int(seq) if run == run_id and seq.isascii() and seq.isdigit() and len(seq) < 10 else 0
