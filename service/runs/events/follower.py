"""Follower of a run, on any worker: stored events come from the database, new ones from the live stream.

The live stream may lack events, among them a later attempt's `run.resumed`. The follower then adds it: all events after
the last stored step are void. So no reader joins the text of two attempts.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from itertools import chain

import redis

from service.runs.events.event_stream import EventStreamReader, attempt_of, event_of
from service.runs.events.recovered import last_finished_seq
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.database import Database, Transaction
from service.types import LAST_EVENT, Event, Run, RunEvent, RunStatus

RECHECK = 5.0  # seconds between checks in the database for a run that ended unnoticed
POLL = (0.05, 0.1, 0.2, 0.4)  # seconds between database polls without a live stream

BEGINS = (Event.RUN_STARTED, Event.RUN_RESUMED)  # an attempt's own declarations of void events


class Follower:
    """Reader of one run. `after` is the number of the last event it has."""

    def __init__(self, db: Database, streams: EventStreamReader, run_id: str, after: int = 0) -> None:
        self._db = db
        self._streams = streams
        self._run_id = run_id
        self._after = after
        self._position = b"0"
        self._attempt = 1  # the latest attempt seen in the stream
        self.done = False
        self.waits: RunStatus | None = None  # the run waits in this: no events until somebody acts

    def events(self, heartbeat: float) -> Iterator[list[RunEvent]]:
        """Yield batches of events until the run ends or waits; an empty batch at least every `heartbeat` seconds.

        Raises `DatabaseUnavailable` when the database stays unavailable.
        """
        polls = 0
        while not self.done:
            run = yield from self._stored()
            if run is None or self.done:
                return
            if run.status.waits:
                self.waits = run.status
                return
            if run.mode == "wait" or not self._streams.available():
                time.sleep(POLL[min(polls, len(POLL) - 1)])
                polls += 1
                if polls % 10 == 0:
                    yield []
                continue
            yield from self._new(heartbeat)

    def first(self) -> list[RunEvent]:
        """Return events so far, without waiting; only the first part if they are large."""
        part = self._db.query(lambda tx: step_rows.first_events(tx, self._run_id, self._after))
        return self.so_far() if part is None else self._in_order([event_of(item) for item in part])

    def so_far(self) -> list[RunEvent]:
        """Return all events so far, without waiting."""
        events = [event for batch in self._stored() for event in batch]
        if not self.done:
            events += chain.from_iterable(map(self._of_entry, self._streams.read_all(self._run_id)))
        return events

    def _stored(self) -> Generator[list[RunEvent], None, Run | None]:
        def read(tx: Transaction) -> tuple[Run | None, list[RunEvent]]:
            run = rows.get(tx, self._run_id)
            return run, [event_of(item) for item in step_rows.events(tx, self._run_id, self._after)]

        run, events = self._db.query(read, patience=20)
        if run is None:  # deleted meanwhile
            self.done = True
            return None
        if run.status.ended:
            # A reader whose `after` is beyond the run's last number has no last event yet.
            last_seq = run.last_seq if self._after <= run.last_seq else self._after + 1
            events.append(RunEvent(LAST_EVENT[run.status], run.result or {}, last_seq))
            self.done = True
        fresh = self._in_order(events)
        if fresh:
            yield fresh
        return run

    def _new(self, heartbeat: float) -> Iterator[list[RunEvent]]:
        until = time.monotonic() + RECHECK
        while not self.done and time.monotonic() < until:
            try:
                entries = self._streams.read(self._run_id, self._position, min(heartbeat, RECHECK, 4.0))
            except redis.RedisError:
                time.sleep(0.2)
                return
            if not entries:
                yield []
                return
            self._position = entries[-1][0]
            if fresh := list(chain.from_iterable(map(self._of_entry, entries))):
                self.done = fresh[-1].name.is_last
                yield fresh

    def _of_entry(self, entry: tuple[bytes, list[RunEvent]]) -> list[RunEvent]:
        """Return an entry's new events, preceded by any missing ones."""
        entry_id, events = entry
        later = bool(events) and attempt_of(entry_id) > self._attempt
        if later:
            self._attempt = attempt_of(entry_id)
        fresh: list[RunEvent] = []
        if self._misses(events):
            # Read before the stored events, which may grow meanwhile.
            finished_seq = self._finished_seq() if later else 0
            fresh += chain.from_iterable(self._stored())  # the missing events may be stored by now
            if later and (first := self._misses(events)) and first.name not in BEGINS:
                fresh += self._in_order(
                    [RunEvent(Event.RUN_RESUMED, {"from_seq": finished_seq}, first.seq - 1)]
                )
        return fresh + self._in_order(events)

    def _misses(self, events: Sequence[RunEvent]) -> RunEvent | None:
        """Return the first new event if numbers are missing before it."""
        first = next((event for event in events if event.seq > self._after), None)
        return first if first is not None and first.seq > self._after + 1 else None

    def _finished_seq(self) -> int:
        return last_finished_seq(self._db.query(lambda tx: step_rows.of_run(tx, self._run_id), patience=20))

    def _in_order(self, events: Sequence[RunEvent]) -> list[RunEvent]:
        """Return the new events, with a `gap` wherever numbers are missing."""
        fresh: list[RunEvent] = []
        for event in events:
            if event.seq <= self._after:
                continue
            if event.seq > self._after + 1:
                gap = {"from_seq": self._after + 1, "to_seq": event.seq - 1}
                fresh.append(RunEvent(Event.GAP, gap, event.seq - 1))
            fresh.append(event)
            self._after = event.seq
        return fresh
