"""Outbox of one attempt: events on their way to the live stream, and to the client connected to this process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.types import Event, RunEvent

log = logging.getLogger("slipway.live")

MAX_UNREAD = 20_000  # events held for a slow client; beyond it, the client reads them from elsewhere
MAX_UNSENT = 20_000  # events held while Redis is unavailable
DELIVER_SECONDS = 60.0  # limit on a run's end waiting for delivery of its events


class ClientConnection(Protocol):
    """Connection of a client. Raises an `OSError` when it is broken."""

    def write(self, events: Sequence[RunEvent]) -> None:
        """Write without blocking; an empty list is a heartbeat; call only when `rest()` is False."""

    def rest(self) -> bool:
        """Write the remainder of an earlier `write`, without blocking. True: some still remains."""


@dataclass(slots=True)
class Listener:
    """Client of a run: its connection, once its response is under way, and the callback for its disconnection."""

    writer: ClientConnection | None = None
    on_disconnect: Callable[[], None] = lambda: None


class Submit(Protocol):
    """Takes an outbox's events for delivery; `last`: there are no more."""

    def __call__(
        self, outbox: Outbox, events: Sequence[RunEvent], urgent: bool, *, last: bool = False
    ) -> None: ...


class Outbox:
    """Events of one attempt, for the live stream and for a client of this process, if there is one.

    The run's thread also serves the client's request, but is busy with the run. So the publishing thread writes events
    to the client, as much as its connection takes without blocking. The rest is retried with later events, at every
    `LOOK`, and finally by the run's thread, once the run has ended: a slow client does not hold up a run.
    """

    def __init__(
        self,
        run_id: str,
        attempt: int,
        submit: Submit,
        listener: Listener | None,
        lost: Callable[[], None] = lambda: None,
    ) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.pending: list[RunEvent] = []
        self.unsent: list[RunEvent] = []  # not taken while Redis was unavailable: sent with the next events
        self.urgent = self.ending = False
        self.busy = False  # a thread is delivering earlier events
        self.renewed = float("-inf")  # time.monotonic() of the stream's last renewal
        self.server: str | None = None  # the Redis process that accepted its last entry
        # time.monotonic() when the database last confirmed this attempt's ownership
        self.owned_at = float("-inf")
        self.fenced = False  # a later attempt owns the run: publish nothing more
        self.seen = 0  # number of the last event given to the client
        self.over = False  # the run's last event was given, or the client has gone
        self._submit = submit
        self._lost_run = lost
        self._began = self._text_sent = False
        self._delivered = threading.Lock()  # released once all is delivered; cheaper than an Event
        self._delivered.acquire()
        self._client_lock = threading.Lock()  # held by the thread that writes to the client; guards all below
        self._listener = listener
        self._unread: list[RunEvent] = []
        self._wrote = time.monotonic()

    def put(self, events: Sequence[RunEvent]) -> None:
        """Publish events. The first event, the first text and the last go out at once, the rest in windows."""
        urgent = not self._began
        self._began = True
        for event in events:
            if event.name is Event.TEXT_DELTA and not self._text_sent:
                self._text_sent = urgent = True
            elif event.name.is_last or event.name is Event.APPROVAL_REQUIRED:
                urgent = True
        self._submit(self, events, urgent)

    @property
    def written(self) -> bool:
        """Return whether the publishing thread writes to the client, so that no other thread may."""
        listener = self._listener
        return listener is not None and listener.writer is not None

    @property
    def has_client(self) -> bool:
        """Return whether a client of this process is attached."""
        return self._listener is not None

    def take(self) -> list[RunEvent]:
        """Take the events that the client has not got yet, to be written by the run's thread."""
        with self._client_lock:
            events, self._unread = self._unread, []
            self._mark_delivered(events)
        return events

    def deliver(self, events: list[RunEvent]) -> None:
        """Write events to the client: the live stream has them now, or the database records that it lacks them."""
        with self._client_lock:
            if self._listener is None or self.fenced:
                return
            self._unread += events
            if len(self._unread) > MAX_UNREAD:
                self._listener, self._unread = None, []
            else:
                self._write()

    def look(self, silence: float) -> None:
        """Write the client's backlog, or a heartbeat after `silence` seconds without events."""
        with self._client_lock:
            self._write(beat=time.monotonic() > self._wrote + silence)

    def hold(self, events: Sequence[RunEvent]) -> None:
        """Hold events that Redis has not taken; beyond `MAX_UNSENT`, the oldest are dropped."""
        self.unsent += events
        del self.unsent[:-MAX_UNSENT]

    def fence(self) -> None:
        """Stop publishing, as a later attempt owns the run. Stops the run's thread."""
        self.fenced = True
        self._lost_run()

    def forget(self) -> None:
        """Drop a client that has disconnected."""
        with self._client_lock:
            self._lost()

    def close(self) -> None:
        """Close when the run's thread is done. Returns once all events are delivered, or after `DELIVER_SECONDS`."""
        self._submit(self, (), True, last=True)
        if not self._delivered.acquire(timeout=DELIVER_SECONDS):
            log.error("live_publish_late", extra={"run_id": self.run_id})
        with self._client_lock:
            self._listener = None

    def closed(self) -> None:
        """Signal that all is delivered."""
        self._delivered.release()

    def _write(self, beat: bool = False) -> None:
        writer = self._listener.writer if self._listener is not None else None
        if self._listener is None or writer is None:
            return
        try:
            if not writer.rest() and (self._unread or beat):
                writer.write(self._unread)
                self._wrote = time.monotonic()
                self._mark_delivered(self._unread)
                self._unread = []
        except Exception as error:  # a fault of one client's lens must not end the thread that serves all
            if not isinstance(error, OSError):
                log.exception("client_write_failed", extra={"run_id": self.run_id})
            on_disconnect = self._listener.on_disconnect
            self._lost()
            on_disconnect()

    def _lost(self) -> None:
        self._listener, self._unread, self.over = None, [], True

    def _mark_delivered(self, events: list[RunEvent]) -> None:
        if events:
            self.seen = events[-1].seq
            self.over = self.over or events[-1].name.is_last
