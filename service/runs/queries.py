"""Queries of runs, wherever they execute: look one up, follow its events, wait for its end."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any

import redis

from service.errors import DatabaseUnavailable, NotFound, RunTimeout, Unavailable
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.follower import Follower
from service.runs.events.outbox import Outbox
from service.runs.relay_step import kept_answer
from service.runs.result import result_of_steps
from service.store import approvals, feedback, run_lists
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.database import Database, Row, Transaction
from service.store.run_lists import RunFilter
from service.store.visibility import UNRESTRICTED, visible_to
from service.types import Caller, Event, Run, RunEvent, RunStatus


@dataclass(frozen=True, slots=True)
class RunQueries:
    """Queries of runs. One per process.

    `heartbeat`: seconds after which a follower gets an empty batch; `seconds`: limit for one follow or wait.
    """

    db: Database
    event_streams: EventStreamReader
    heartbeat: float
    seconds: float
    draining: Callable[[], bool] = lambda: False

    def get(self, run_id: str, caller: Caller | None = None, *, own: bool = False) -> Run:
        """Find a run; without a caller any run, with `own` only the caller's.

        Raises `NotFound`, also for a run that the caller may not see.
        """
        visible = UNRESTRICTED if caller is None else visible_to(caller, own=own)
        run = self.db.query(lambda tx: rows.get(tx, run_id, visible))
        if run is None:
            raise NotFound(f"There is no run {run_id}.")
        return run

    def page(self, caller: Caller, filters: RunFilter, *, limit: int, before: str | None) -> list[Row]:
        """List at most `limit` runs that the caller may see, newest first, older than the run `before`.

        Rows have the columns of `store.run_lists`.
        """
        visible = visible_to(caller)
        return self.db.query(
            lambda tx: run_lists.recent(tx, filters, limit=limit, before=before, visible=visible)
        )

    def steps_and_feedback(self, run_id: str) -> tuple[list[Row], Row | None]:
        """Read the steps of a run, and its user's feedback, if any."""
        return self.db.query(lambda tx: (step_rows.listed(tx, run_id), feedback.of_run(tx, run_id)))

    def result(self, run: Run) -> dict[str, Any]:
        """Return the run result; before the run's end, with its text and steps so far."""
        if run.result is not None:
            return run.result

        def read(tx: Transaction) -> dict[str, Any]:
            return result_of_steps(run, step_rows.of_run(tx, run.id), approvals.pending(tx, run.id))

        return self.db.query(read)

    def relayed(self, run_id: str) -> bytes | None:
        """Return the answer of a relayed run as its client got it, where it was kept."""
        return self.db.query(lambda tx: kept_answer(tx, run_id))

    def follow(
        self, run_id: str, after: int = 0, may_read: Callable[[], bool] = lambda: True
    ) -> Generator[list[RunEvent]]:
        """Yield batches of a run's events after number `after`, until the last; empty ones as heartbeats.

        A `reconnect` event ends it early when the run waits for a person, when this worker stops, when the database
        stays unavailable, once the reader no longer `may_read`, and after the time limit of an attempt: a follower
        holds a thread.
        """
        follower = Follower(self.db, self.event_streams, run_id, after)
        until = time.monotonic() + self.seconds
        try:
            for events in follower.events(self.heartbeat):
                if not may_read():
                    yield [_reconnect(after)]
                    return
                yield events
                after = events[-1].seq if events else after
                if not follower.done and (self.draining() or time.monotonic() > until):
                    yield [_reconnect(after)]
                    return
        except DatabaseUnavailable:
            yield [_reconnect(after)]
        if follower.waits is not None:
            yield [_reconnect(after, status=follower.waits)]

    def has_begun(self, run_id: str, seconds: float) -> bool:
        """Return whether a run has its first event within `seconds`, so that it can be followed live."""
        try:
            return bool(self.event_streams.read(run_id, b"0", seconds))
        except redis.RedisError:
            return False

    def so_far(self, run_id: str, after: int = 0) -> list[RunEvent]:
        return Follower(self.db, self.event_streams, run_id, after).so_far()

    def first(self, run_id: str, after: int = 0) -> list[RunEvent]:
        """Return events so far after number `after`; only the first part if they are large."""
        return Follower(self.db, self.event_streams, run_id, after).first()

    def wait(self, run_id: str) -> Run:
        """Wait until a run ends or waits for a person, wherever it executes.

        Raises `Unavailable` when this worker stops first, and `RunTimeout` after the time limit of an attempt.
        """
        until = time.monotonic() + self.seconds
        while True:
            self._wait(run_id, until)
            run = self.get(run_id)
            if run.status.ended or run.status.waits:  # else: decided meanwhile
                run.result = self.result(run)
                return run

    def _wait(self, run_id: str, until: float) -> None:
        follower = Follower(self.db, self.event_streams, run_id)
        for _ in follower.events(self.heartbeat):
            if self.draining() and not follower.done:
                raise Unavailable(
                    f"This server is stopping; the run {run_id} goes on elsewhere.", retry_after=1
                )
            if time.monotonic() > until:
                raise RunTimeout(f"The run {run_id} is still under way.")

    def listen(
        self, run: Run, outbox: Outbox, first: list[RunEvent], execution: Generator[list[RunEvent]]
    ) -> Generator[list[RunEvent]]:
        """Yield events while this worker executes the run; if it gives the run up, follow it elsewhere.

        Begins with its `first` events; reading `execution` executes the run.
        """
        with closing(execution):
            yield from (events for events in chain((first,), execution) if events)
        if outbox.over:
            return
        if self.draining():
            yield [_reconnect(outbox.seen)]
        else:  # it waits for a person, goes on elsewhere, or its client was too slow
            yield from self.follow(run.id, outbox.seen)


def _reconnect(after: int, **why: RunStatus) -> RunEvent:
    """Build the event that makes a client ask again, with this number as `Last-Event-ID`."""
    return RunEvent(Event.RECONNECT, {"last_seq": after, **why}, after)
