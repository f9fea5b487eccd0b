"""One run's events on their way to its live stream, and to the client that listens to it in this process."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from service.types import Event, RunEvent

log = logging.getLogger("slipway.live")

MAX_UNREAD = 20_000  # events a channel holds for a slow client before it has to read them from elsewhere
MAX_UNTAKEN = 20_000  # events a channel holds for a Redis that is away
BRING_SECONDS = 60.0  # the longest that a run's end waits for what it has told to be brought


class ClientConnection(Protocol):
    """A client's connection. What is raised here is an `OSError`: it is broken."""

    def write(self, events: Sequence[RunEvent]) -> None:
        """As much as it takes without waiting; none of them is a sign of life. Only where there is no rest."""

    def rest(self) -> bool:
        """Send what is left of what was begun, without waiting. True: some of it still is."""


@dataclass(slots=True)
class Listener:
    """The client that asked for a run: where it is written to, once its response is under way, and what to do if it
    leaves."""

    writer: ClientConnection | None = None
    gone: Callable[[], None] = lambda: None


class Submit(Protocol):
    """Takes over what a channel's run tells, to be brought to the live stream; `last`: there is no more."""

    def __call__(
        self, channel: Outbox, events: Sequence[RunEvent], urgent: bool, *, last: bool = False
    ) -> None: ...


class Outbox:
    """One run's events on their way to the live stream, and to the client that listens here, if one does.

    The thread of the run is the client's too, and is busy with the run. So the events are written by whoever brings
    them, as much as the connection takes at once. What it does not take is tried again with those that follow, at
    every `LOOK`, and last by the run's thread, once the run has ended: a slow client does not keep a run from going on.
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
        self.untaken: list[RunEvent] = []  # Redis was away: it is given them with those that follow
        self.urgent = self.ending = False
        self.busy = False  # some thread is bringing what was told before
        self.renewed = float("-inf")  # time.monotonic(); when the life of its stream was last renewed
        self.server: str | None = None  # the Redis process that took its last entry
        self.owned_at = float(
            "-inf"
        )  # time.monotonic(); when the database last said that the run is this attempt's
        self.fenced = False  # a later attempt has taken the run over: nothing more is told here
        self.seen = 0  # the number of the last event that the client was given
        self.over = False  # that was the run's last, or there is nobody to be given one
        self._submit = submit
        self._lost_run = lost
        self._began = self._spoke = False
        self._brought = threading.Lock()  # open once all is brought; lighter than an event
        self._brought.acquire()
        self._giving = threading.Lock()  # held by whoever gives events to the client; of all below
        self._listener = listener
        self._unread: list[RunEvent] = []
        self._wrote = time.monotonic()

    def put(self, events: Sequence[RunEvent]) -> None:
        """By the run's thread. The first event, the first word and the last go out at once, the rest in windows."""
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
        """The client is written to by whoever brings the events, so nobody else may."""
        listener = self._listener
        return listener is not None and listener.writer is not None

    @property
    def listened(self) -> bool:
        """Whether a client is told here."""
        return self._listener is not None

    def take(self) -> list[RunEvent]:
        """What the client was not given yet, to be written by the run's thread."""
        with self._giving:
            events, self._unread = self._unread, []
            self._given(events)
        return events

    def deliver(self, events: list[RunEvent]) -> None:
        """These are in the live stream now, or the database knows that they are not."""
        with self._giving:
            if self._listener is None or self.fenced:
                return
            self._unread += events
            if len(self._unread) > MAX_UNREAD:
                self._listener, self._unread = None, []
            else:
                self._write()

    def look(self, silence: float) -> None:
        """Give the client what it did not take before, or a sign of life after so many seconds without a word."""
        with self._giving:
            self._write(beat=time.monotonic() > self._wrote + silence)

    def hold(self, events: Sequence[RunEvent]) -> None:
        """Redis has not taken these; the oldest are given up when they become too many."""
        self.untaken += events
        del self.untaken[:-MAX_UNTAKEN]

    def fence(self) -> None:
        """A later attempt tells the run from here on: what this one tells is void. The run's thread hears of it."""
        self.fenced = True
        self._lost_run()

    def forget(self) -> None:
        """The client has gone."""
        with self._giving:
            self._lost()

    def close(self) -> None:
        """By the run's thread, when it lets go of the run: returns once all that it told is brought."""
        self._submit(self, (), True, last=True)
        if not self._brought.acquire(timeout=BRING_SECONDS):
            log.error("live_publish_late", extra={"run_id": self.run_id})
        with self._giving:
            self._listener = None

    def closed(self) -> None:
        """All is brought."""
        self._brought.release()

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
