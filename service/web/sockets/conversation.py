"""Conversation over one WebSocket: sign-in, then one turn after another, in the thread of its request."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, suppress
from contextvars import copy_context
from functools import partial

from websockets.frames import CloseCode

from service.errors import Forbidden, SlipwayError, Unauthenticated
from service.observe import logs
from service.runs.bulkhead import Permit
from service.runs.start import Stream
from service.types import Event, Run, RunEvent
from service.web import limits
from service.web.body import parsed
from service.web.current import current
from service.web.lifecycle import draining
from service.web.recheck import still_admitted
from service.web.sockets.client import Client, EventWriter
from service.web.sockets.connection import CLOSING_SECONDS, Closed, Connection
from service.web.sockets.reader import Reader, drain, token_of
from service.web.sockets.seats import Seats
from service.web.sockets.session_turns import SessionOfConnection, enter, start
from service.web.sockets.turns import Turn, Turns
from service.web.streaming import unwritten

log = logging.getLogger("slipway.websocket")
SIGN_IN_SECONDS = 10.0  # or SOCKET_IDLE_SECONDS, if shorter
LOOK = 1.0  # seconds between two looks at a run that waits for a person


class Conversation:
    """Turns with one agent. `seat` is released at the end."""

    def __init__(self, agent: str, seats: Seats, seat: ExitStack, *, signed_in: bool) -> None:
        self._agent = agent
        self._seats = seats
        self._seat = seat
        self._signed_in = signed_in
        self._turns = Turns()
        self._session = SessionOfConnection()
        self._services = current().services
        self._thread: threading.Thread | None = None
        self._runs = 0

    def leave(self) -> None:
        """Release the seat."""
        self._seat.close()

    def hold(self) -> Iterator[bytes]:
        """Hold the conversation, as the body of its response: the empty part sends the head."""
        try:
            yield b""
            request = current()
            self._client = Client(Connection(request.environ["gunicorn.socket"]), request)
            self._connection = self._client.connection
            began = time.monotonic()
            try:
                self._guarded()
            finally:
                self._end()
                about = {"route": str(request.url_rule), "code": self._connection.code, "runs": self._runs}
                log.info("websocket", extra={**about, "seconds": round(time.monotonic() - began, 1)})
        finally:
            self.leave()

    def _end(self) -> None:
        """Let the closing handshake end, in the reader's thread if there is one; then end the connection."""
        if self._thread is not None:
            self._thread.join(CLOSING_SECONDS + 2.0)
        else:
            drain(self._connection)
        self._connection.abort()

    def _guarded(self) -> None:
        """Converse; whatever ends it, the client is told and the connection is closing."""
        try:
            self._converse()
        except Closed:
            pass
        except SlipwayError as error:
            with suppress(Closed):
                self._client.leave(error)
        except Exception:
            log.exception("websocket_failed")
            with suppress(Closed):
                self._client.leave(SlipwayError())
        finally:
            self._connection.close(CloseCode.NORMAL_CLOSURE)

    def _converse(self) -> None:
        first = [] if self._signed_in else self._sign_in()
        self._connection.widen()
        request = current()
        reader = Reader(self._client, self._turns, self._services, request.caller, still_admitted(request))
        self._reader = reader
        target = partial(copy_context().run, reader.read, first)
        self._thread = threading.Thread(target=target, name="websocket-reader", daemon=True)
        self._thread.start()
        while (item := self._turns.take()) is not None:
            with logs.bound():  # a run's fields are of its own lines only
                self._turn(item) if isinstance(item, Turn) else self._renew(item)

    # --- sign-in -------------------------------------------------------------------------------------

    def _sign_in(self) -> list[bytes]:
        """Wait for a token; return the messages that came with it. Raises `Unauthenticated`, and as `enter`."""
        seconds = min(SIGN_IN_SECONDS, self._services.settings.socket_idle_seconds)
        end = time.monotonic() + seconds
        messages: list[bytes] = []
        while not messages:
            if draining():
                self._connection.close(CloseCode.SERVICE_RESTART, "This server stops; connect again.")
            if self._connection.closing:
                raise Closed
            if time.monotonic() > end:
                raise Unauthenticated(f"No token came within {seconds:g} s.")
            messages = self._connection.receive(0.5)
        user_id = self._entered(token_of(parsed(messages[0])))
        seat = self._seats.take(user_id)
        self._seat.close()
        self._seat = seat
        return messages[1:]

    def _entered(self, token: str) -> str:
        """Authenticate with a token, in place of the handshake's. Raises as `enter`."""
        request = current()
        request.environ.pop("HTTP_X_API_KEY", None)
        request.environ["HTTP_AUTHORIZATION"] = f"Bearer {token}"
        request.made_up = False
        try:
            return enter(agent=self._agent)
        except SlipwayError:
            limits.limit_refused(request)
            raise

    def _renew(self, token: str) -> None:
        """Go on with a new token of the same user. Raises `Forbidden`, and as `enter`."""
        before = self._reader.caller
        if self._entered(token) != before.user_id:
            raise Forbidden("This connection is another user's.")
        request = current()
        request.key = request.key if request.caller.key_id is not None else None
        self._reader.caller, self._reader.may_read = request.caller, still_admitted(request)

    # --- turns ---------------------------------------------------------------------------------------

    def _turn(self, turn: Turn) -> None:
        try:
            stream = start(self._agent, turn, self._session)
        except Unauthenticated as error:
            self._client.leave(error)
        except SlipwayError as error:
            self._turns.answered()
            self._client.refuse(error)
        else:
            self._tell(stream)
        finally:
            self._turns.done()

    def _tell(self, stream: Stream) -> None:
        """Send a run's events until its end. It goes on where the client leaves, as `on_disconnect` says."""
        started, batches = stream
        run = started.run
        self._runs += 1
        self._services.infra.metrics.cache(run.agent, run.cache)
        log.info("websocket_turn", extra={"run_id": run.id})
        if self._turns.started(run):
            self._reader.cancel(run)
        writer = EventWriter(self._connection, run.id, self._turns.answered)
        gone = partial(self._services.runs.cancellation.client_gone, run)
        whole = self._to_the_end(run, batches, started.place)
        try:
            with closing(unwritten(whole, writer, gone, started.listener)) as parts:
                for events in parts:
                    writer.write(events)
                    writer.finish()
        finally:
            if started.place is not None:
                started.place.give()

    def _to_the_end(
        self, run: Run, batches: Generator[list[RunEvent]], place: Permit | None
    ) -> Generator[list[RunEvent]]:
        """Yield a run's events also after waits for a person; `reconnect` only where this worker stops."""
        while True:
            after = None
            with closing(batches):
                for events in batches:
                    if events and events[-1].name is Event.RECONNECT and not draining():
                        after, events = events[-1].data["last_seq"], events[:-1]
                    yield events
            if after is None:
                return
            if place is not None:
                place.give()  # the seat of the connection is enough to follow
            yield from self._waits(run.id, after)
            batches = self._services.runs.queries.follow(run.id, after)

    def _waits(self, run_id: str, after: int) -> Generator[list[RunEvent]]:
        """Yield an empty batch every `LOOK` while a run waits."""
        self._turns.paused = True
        while self._services.runs.queries.get(run_id).status.waits and not draining():
            yield []
            time.sleep(LOOK)
        self._turns.paused = False
