"""Outbox of one attempt: events on their way to the live stream, and to the client that listens in this process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.types import Event, RunEvent

log = logging.getLogger("slipway.live")

MAX_UNREAD = 20_000  # events an outbox holds for a slow client before it has to read them from elsewhere
MAX_UNTAKEN = 20_000  # events an outbox holds for a Redis that is away
DELIVER_SECONDS = 60.0  # the longest that a run's end waits for its events to be delivered


class ClientConnection(Protocol):
    """Connection of a client. Raises an `OSError` where it is broken."""

    def write(self, events: Sequence[RunEvent]) -> None:
        """Write without blocking; an empty list is a heartbeat; call only when `rest()` is False."""

    def rest(self) -> bool:
        """Write the rest of an earlier `write`, without blocking. True: there still is a rest."""


@dataclass(slots=True)
class Listener:
    """Client that asked for a run: its connection, once its response is under way, and what to do if it leaves."""

    writer: ClientConnection | None = None
    gone: Callable[[], None] = lambda: None


class Submit(Protocol):
    """Takes over the events of an outbox, to deliver them; `last`: there are no more."""

    def __call__(
        self, outbox: Outbox, events: Sequence[RunEvent], urgent: bool, *, last: bool = False
    ) -> None: ...


class Outbox:
    """Events of one attempt, for the live stream and for the client that listens here, if one does.

    The thread of the run is the client's too, and is busy with the run. So the thread that publishes events writes them
    to the client, as much as its connection takes at once. The rest is tried again with later events, at every `LOOK`,
    and last by the run's thread, once the run has ended: a slow client does not hold up a run.
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
        self.untaken: list[RunEvent] = []  # Redis was away: it gets them with those that follow
        self.urgent = self.ending = False
        self.busy = False  # some thread is delivering earlier events
        self.renewed = float("-inf")  # time.monotonic(); when the life of its stream was last renewed
        self.server: str | None = None  # the Redis process that took its last entry
        self.owned_at = float(
            "-inf"
        )  # time.monotonic(); when the database last said that the run is this attempt's
        self.fenced = False  # a later attempt has taken the run over: nothing more is published here
        self.seen = 0  # the number of the last event that the client was given
        self.over = False  # that was the run's last, or there is nobody to be given one
        self._submit = submit
        self._lost_run = lost
        self._began = self._spoke = False
        self._delivered = threading.Lock()  # released once all is delivered; lighter than an event
        self._delivered.acquire()
        self._giving = threading.Lock()  # held by the thread that writes to the client; guards all below
        self._listener = listener
        self._unread: list[RunEvent] = []
        self._wrote = time.monotonic()

    def put(self, events: Sequence[RunEvent]) -> None:
        """Publish events. The first event, the first text and the last go out at once, the rest in windows."""
        urgent = not self._began
        self._began = True
        for event in events:
            if event.name is Event.TEXT_DELTA and not self._spoke:
                self._spoke = urgent = True
            elif event.name.is_last or event.name is Event.APPROVAL_REQUIRED:
                urgent = True
        self._submit(self, events, urgent)

    @property
    def written(self) -> bool:
        """Tell whether the publishing thread writes to the client, so that nobody else may."""
        listener = self._listener
        return listener is not None and listener.writer is not None

    @property
    def listened(self) -> bool:
        """Tell whether a client listens here."""
        return self._listener is not None

    def take(self) -> list[RunEvent]:
        """Take the events that the client has not got yet, to be written by the run's thread."""
        with self._giving:
            events, self._unread = self._unread, []
            self._given(events)
        return events

    def deliver(self, events: list[RunEvent]) -> None:
        """Write events to the client: they are in the live stream now, or the database has noted that they are not."""
        with self._giving:
            if self._listener is None or self.fenced:
                return
            self._unread += events
            if len(self._unread) > MAX_UNREAD:
                self._listener, self._unread = None, []
            else:
                self._write()

    def look(self, silence: float) -> None:
        """Write what the client did not take before, or a heartbeat after so many seconds of silence."""
        with self._giving:
            self._write(beat=time.monotonic() > self._wrote + silence)

    def hold(self, events: Sequence[RunEvent]) -> None:
        """Hold events that Redis has not taken; the oldest are dropped when they become too many."""
        self.untaken += events
        del self.untaken[:-MAX_UNTAKEN]

    def fence(self) -> None:
        """Publish no more: a later attempt has the run. Stops the run's thread."""
        self.fenced = True
        self._lost_run()

    def forget(self) -> None:
        """Let go of a client that has gone."""
        with self._giving:
            self._lost()

    def close(self) -> None:
        """Close, when the run's thread lets go of the run. Returns once all its events are delivered."""
        self._submit(self, (), True, last=True)
        if not self._delivered.acquire(timeout=DELIVER_SECONDS):
            log.error("live_publish_late", extra={"run_id": self.run_id})
        with self._giving:
            self._listener = None

    def closed(self) -> None:
        """Note that all is delivered."""
        self._delivered.release()

    def _write(self, beat: bool = False) -> None:
        writer = self._listener.writer if self._listener is not None else None
        if self._listener is None or writer is None:
            return
        try:
            if not writer.rest() and (self._unread or beat):
                writer.write(self._unread)
                self._wrote = time.monotonic()
                self._given(self._unread)
                self._unread = []
        except OSError:
            gone = self._listener.gone
            self._lost()
            gone()

    def _lost(self) -> None:
        self._listener, self._unread, self.over = None, [], True

    def _given(self, events: list[RunEvent]) -> None:
        if events:
            self.seen = events[-1].seq
            self.over = self.over or events[-1].name.is_last
