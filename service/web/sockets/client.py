"""Client at the other end of a WebSocket: what both threads of its connection tell it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import orjson
from websockets.frames import CloseCode

from service.errors import SlipwayError
from service.runs.result import shown
from service.types import Event, RunEvent
from service.web.current import Request
from service.web.sockets.connection import Connection
from service.web.sockets.meter import Meter

REFUSALS, REFUSALS_A_SECOND = 30, 2.0


class Client:
    """Connection with the request that opened it."""

    def __init__(self, connection: Connection, request: Request) -> None:
        self.connection = connection
        self._about = {"instance": request.path, "request_id": request.id}
        self._meter = Meter(REFUSALS, REFUSALS_A_SECOND)

    def refuse(self, error: SlipwayError) -> None:
        """Send an `error` event. Raises `Closed`."""
        problem = {**error.as_problem(), **self._about}
        if error.retry_after is not None:
            problem["retry_after"] = error.retry_after
        self.connection.send([orjson.dumps({"event": "error", "data": problem})])
        self.count()

    def count(self) -> None:
        """Count a message that began no turn; close the connection at too many of them."""
        if not self._meter.passes():
            self.connection.close(CloseCode.POLICY_VIOLATION, "Too many messages that begin no turn.")

    def leave(self, error: SlipwayError) -> None:
        """Send an `error` event and close the connection, with 4000 and the status where the client is at fault."""
        self.refuse(error)
        unavailable = CloseCode.TRY_AGAIN_LATER if error.status == 503 else CloseCode.INTERNAL_ERROR
        self.connection.close(4000 + error.status if error.status < 500 else unavailable, error.code)


class EventWriter:
    """Writes events of one run to a connection; only `finish` blocks."""

    def __init__(self, connection: Connection, run_id: str, before_last: Callable[[], None]) -> None:
        self._run_id = run_id
        self._before_last = before_last
        self._connection = connection
        self.rest, self.finish = connection.rest, connection.finish

    def write(self, events: Sequence[RunEvent]) -> None:
        """Send each event as a message; without any it shows whether the connection is open. Raises `Closed`."""
        if events and events[-1].name.is_last:
            self._before_last()
        self._connection.send([_encoded(self._run_id, event) for event in events])


def _encoded(run_id: str, event: RunEvent) -> bytes:
    """Encode an event as in an event stream: `reconnect` belongs to the connection, and has no id."""
    about = {} if event.name is Event.RECONNECT else {"id": f"{run_id}:{event.seq}"}
    return orjson.dumps({**about, "event": event.name, "data": shown(event.data)})
