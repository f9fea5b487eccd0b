"""Runs from outside, wherever they are driven: look one up, follow it, wait for its end, stop it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from functools import partial
from itertools import chain
from typing import Any

import redis

from service.errors import DatabaseUnavailable, NotFound, RunFinished, RunTimeout, Unavailable
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.follower import Follower
from service.runs.events.outbox import Outbox
from service.runs.result import result_of_kept
from service.runs.runner import Ended
from service.runs.slots import Slots
from service.store import approvals, feedback, run_lists
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.database import Database, Row, Transaction
from service.store.visibility import UNRESTRICTED, visible_to
from service.types import Caller, Event, Run, RunEvent, RunStatus, now_ms


class RunQueries:
    """One per process. `heartbeat`: seconds after which a follower hears that nothing is new; `seconds`: how long one
    may follow or wait at once.

    `ended` writes what else belongs into a run's last transaction.
    """

    def __init__(
        self,
        *,
        db: Database,
        active: Slots,
        live: EventStreamReader,
        ended: Ended,
        heartbeat: float,
        seconds: float,
        draining: Callable[[], bool] = lambda: False,
    ) -> None:
        self._db = db
        self._active = active
        self._live = live
        self._ended = ended
        self._heartbeat = heartbeat
        self._seconds = seconds
        self._draining = draining

    def get(self, run_id: str, caller: Caller | None = None, *, own: bool = False) -> Run:
        """Find a run; without a caller any one, with `own` only the caller's. Raises `NotFound`, also for one that the
        caller may not see."""
        visible = UNRESTRICTED if caller is None else visible_to(caller, own=own)
        run = self._db.query(lambda tx: rows.get(tx, run_id, visible))
        if run is None:
            raise NotFound(f"There is no run {run_id}.")
        return run

    def page(self, caller: Caller, **wanted: Any) -> list[Row]:
        """List runs that the caller may see, newest first; `wanted` as `run_lists.recent` takes it."""
        return self._db.query(partial(run_lists.recent, visible=visible_to(caller), **wanted))

    def steps_and_feedback(self, run_id: str) -> tuple[list[Row], Row | None]:
        """Read the steps of a run, and what its user thinks of it, where that was said."""
        return self._db.query(lambda tx: (step_rows.listed(tx, run_id), feedback.of_run(tx, run_id)))

    def result(self, run: Run) -> dict[str, Any]:
        """Return the run result; of a run that has not ended, with what is told and done by now."""
        if run.result is not None:
            return run.result

        def read(tx: Transaction) -> dict[str, Any]:
            return result_of_kept(run, step_rows.of_run(tx, run.id), approvals.pending(tx, run.id))

        return self._db.query(read)

    def follow(self, run_id: str, after: int = 0) -> Generator[list[RunEvent]]:
        """Yield batches of a run's events after number `after`, until the last; empty ones as heartbeats.

        A `reconnect` event ends it before that where the run waits for a person, where this worker stops, where the
        database stays away, and after as long as an attempt at a run may take: a follower holds a thread.
        """
        follower = Follower(self._db, self._live, run_id, after)
        until = time.monotonic() + self._seconds
        try:
            for events in follower.events(self._heartbeat):
                yield events
                after = events[-1].seq if events else after
                if not follower.done and (self._draining() or time.monotonic() > until):
                    yield [_reconnect(after)]
                    return
        except DatabaseUnavailable:
            yield [_reconnect(after)]
        if follower.waits:
            yield [_reconnect(after)]

    def began(self, run_id: str, seconds: float) -> bool:
        """Whether a run can be followed live within so many seconds: it is in the database once it has told its first
        event."""
        try:
            return bool(self._live.read(run_id, b"0", seconds))
        except redis.RedisError:
            return False

    def so_far(self, run_id: str, after: int = 0) -> list[RunEvent]:
        return Follower(self._db, self._live, run_id, after).so_far()

    def first(self, run_id: str, after: int = 0) -> list[RunEvent]:
        """Return events told until now after number `after`; the first part of it where it is large."""
        return Follower(self._db, self._live, run_id, after).first()

    def cancel(self, run: Run) -> None:
        """Deliver a cancellation: to the thread that drives the run, here or wherever it is.

        Raises `RunFinished` when there is nothing left to cancel, and `NotFound`.
        """
        waiting = (RunStatus.QUEUED, RunStatus.WAITING_APPROVAL)

        def ask(tx: Transaction) -> bool:
            rows.ask_cancel(tx, run.id)
            fresh = rows.get(tx, run.id)
            if fresh is None:  # deleted meanwhile
                raise NotFound(f"There is no run {run.id}.")
            if fresh.status.ended:
                raise RunFinished(f"This run is {fresh.status} already.")
            if fresh.status not in waiting:
                return False
            fresh.status, fresh.finished_at = RunStatus.CANCELLED, now_ms()
            fresh.last_seq += 1
            fresh.result = result_of_kept(fresh, step_rows.of_run(tx, fresh.id))
            if not rows.close(tx, fresh, waiting):
                return False
            approvals.close(tx, fresh.id)
            self._ended(tx, fresh)
            return True

        if not self._db.transact(ask) and (handle := self._active.get(run.id)) is not None:
            handle.stop("cancelled")

    def client_gone(self, run: Run) -> None:
        """The one who listened has gone; the run goes on unless they wanted it cancelled then."""
        handle = self._active.get(run.id)
        if run.request.on_disconnect == "cancel" and handle is not None:
            handle.stop("cancelled")

    def wait(self, run_id: str) -> Run:
        """Wait until a run ends or waits for a person, wherever it is driven.

        Raises `Unavailable` where this worker stops first, and `RunTimeout` after as long as an attempt may take.
        """
        until = time.monotonic() + self._seconds
        while True:
            self._wait(run_id, until)
            run = self.get(run_id)
            if run.status.ended or run.status is RunStatus.WAITING_APPROVAL:  # else it was decided meanwhile
                run.result = self.result(run)
                return run

    def _wait(self, run_id: str, until: float) -> None:
        follower = Follower(self._db, self._live, run_id)
        for _ in follower.events(self._heartbeat):
            if self._draining() and not follower.done:
                raise Unavailable(
                    f"This server is stopping; the run {run_id} goes on elsewhere.", retry_after=1
                )
            if time.monotonic() > until:
                raise RunTimeout(f"The run {run_id} is still under way.")

    def listen(
        self, run: Run, channel: Outbox, first: list[RunEvent], driven: Generator[list[RunEvent]]
    ) -> Generator[list[RunEvent]]:
        """Yield a run's events while reading `driven` drives it, from its `first` on; follow it elsewhere, once it is
        let go of here."""
        with closing(driven):
            yield from (events for events in chain((first,), driven) if events)
        if channel.over:
            return
        if self._draining():
            yield [_reconnect(channel.seen)]
        else:  # it waits for a person, goes on elsewhere, or was too much for its client
            yield from self.follow(run.id, channel.seen)


def _reconnect(after: int) -> RunEvent:
    """The run goes on elsewhere: ask again with this number as `Last-Event-ID`."""
    return RunEvent(Event.RECONNECT, {"last_seq": after}, after)
