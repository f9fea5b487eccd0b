"""Server-sent events: the encoder of the native streams, and the parser of `Last-Event-ID`."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from service.runs.result import shown
from service.text.numerals import whole_number
from service.types import Event, RunEvent

RETRY = b"retry: 1000"  # milliseconds


class SseLens:
    """Encodes a run's events as `text/event-stream`: `id`, `event` and `data` of each."""

    mimetype = "text/event-stream"
    heartbeat = b": keep-alive\n\n"

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id.encode()

    def encode(self, events: Sequence[RunEvent]) -> bytes:
        """Encode events. `reconnect` belongs to the stream, not to the run: it has `retry` in place of an `id`."""
        return b"".join(
            b"%b\nevent: %b\ndata: %b\n\n"
            % (
                RETRY if event.name is Event.RECONNECT else b"id: %b:%d" % (self._run_id, event.seq),
                event.name.encode(),
                orjson.dumps(shown(event.data)),
            )
            for event in events
        )


def last_seen(header: str | None, run_id: str) -> int:
    """Parse the number in `Last-Event-ID: <run_id>:<seq>`; 0 if missing, or of another run."""
    if not header:
        return 0
    run, _, seq = header.strip().rpartition(":")
    return (whole_number(seq) or 0) if run == run_id else 0
