"""Follow a run from any worker: what is kept comes from the database, what is new from the live stream."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence

import redis

from service.runs.live import LiveReader, event_of
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.base import Database, Transaction
from service.types import Event, Run, RunEvent, RunStatus

RECHECK = 5.0  # seconds after which the database is asked whether the run has ended unseen
POLL = (0.05, 0.1, 0.2, 0.4)  # seconds between looks at the database where there is no live stream

LAST_OF = {
    RunStatus.SUCCEEDED: Event.RUN_COMPLETED,
    RunStatus.FAILED: Event.RUN_FAILED,
    RunStatus.CANCELLED: Event.RUN_CANCELLED,
}


class Follower:
    """One reader of one run. `after` is the number of the last event it has."""

    def __init__(self, db: Database, live: LiveReader, run_id: str, after: int = 0) -> None:
        self._db = db
        self._live = live
        self._run_id = run_id
        self._after = after
        self._position = b"0"
        self.done = False
        self.waits = False  # the run waits for a person: nothing comes until a decision is taken

    def events(self, heartbeat: float) -> Iterator[list[RunEvent]]:
        """Yield batches of events until the last, or the run waits; an empty one at least every `heartbeat` seconds.

        Raises `DatabaseUnavailable` when the database stays away.
        """
        looks = 0
        while not self.done:
            run = yield from self._kept()
            if run is None or self.done:
                return
            if run.status is RunStatus.WAITING_APPROVAL:
                self.waits = True
                return
            if run.door == "invoke" or not self._live.available():
                time.sleep(POLL[min(looks, len(POLL) - 1)])
                looks += 1
                if looks % 10 == 0:
                    yield []
                continue
            yield from self._new(heartbeat)

    def first(self) -> list[RunEvent]:
        """Return events told until now, without waiting; the first part of it where it is large."""
        part = self._db.query(lambda tx: step_rows.first_events(tx, self._run_id, self._after))
        return self.so_far() if part is None else self._in_order([event_of(item) for item in part])

    def so_far(self) -> list[RunEvent]:
        """Everything told until now, without waiting."""
        events = [event for batch in self._kept() for event in batch]
        if not self.done:
            events += self._in_order(self._live.told(self._run_id, self._after))
        return events

    def _kept(self) -> Generator[list[RunEvent], None, Run | None]:
        def read(tx: Transaction) -> tuple[Run | None, list[RunEvent]]:
            run = rows.get(tx, self._run_id)
            return run, [event_of(item) for item in step_rows.events(tx, self._run_id, self._after)]

        run, events = self._db.query(read, patience=20)
        if run is None:  # deleted meanwhile
            self.done = True
            return None
        if run.status.ended:
            # Whoever asks for more than there was has no last event yet.
            last_seq = run.last_seq if self._after <= run.last_seq else self._after + 1
            events.append(RunEvent(LAST_OF[run.status], run.result or {}, last_seq))
            self.done = True
        fresh = self._in_order(events)
        if fresh:
            yield fresh
        return run

    def _new(self, heartbeat: float) -> Iterator[list[RunEvent]]:
        until = time.monotonic() + RECHECK
        while not self.done and time.monotonic() < until:
            try:
                entries = self._live.read(self._run_id, self._position, min(heartbeat, RECHECK, 4.0))
            except redis.RedisError:
                time.sleep(0.2)
                return
            if not entries:
                yield []
                return
            self._position = entries[-1][0]
            events = [event for _, batch in entries for event in batch if event.seq > self._after]
            if events and events[0].seq > self._after + 1:
                yield from self._kept()  # the stream has lost its beginning: perhaps it is kept by now
            if fresh := self._in_order(events):
                self.done = fresh[-1].name.is_last
                yield fresh

    def _in_order(self, events: Sequence[RunEvent]) -> list[RunEvent]:
        """Those not yet seen, with a `gap` wherever numbers are missing."""
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
