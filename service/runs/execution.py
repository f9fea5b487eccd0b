"""Drives runs to their end: new ones in the thread of their request, and those that nobody drives any more."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial

from service.agents.catalog import AgentCatalog
from service.errors import DatabaseUnavailable, Overloaded, SessionBusy
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.outbox import Listener, Outbox
from service.runs.events.publisher import Publisher
from service.runs.events.recovered import told_before
from service.runs.journal import PATIENCE, Journal, Opening
from service.runs.runner import Runner
from service.runs.slots import HandedOver, Handle, LeaseLost, Slots
from service.sessions import Sessions
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.database import Database, Transaction
from service.types import Run, RunEvent
from service.usage.concurrency import ConcurrentRuns

log = logging.getLogger("slipway.runs")


class _LateClaim(Exception):
    """The database hung while a run was claimed: the leases of the living may have ended meanwhile."""


class Execution:
    """One per process; `worker_id` is whose lease its runs are under, and `seconds` the longest a run may take."""

    def __init__(
        self,
        *,
        db: Database,
        catalog: AgentCatalog,
        runner: Runner,
        active: Slots,
        publisher: Publisher,
        live: EventStreamReader,
        sessions: Sessions,
        concurrent: ConcurrentRuns,
        worker_id: str,
        seconds: float,
        lease_seconds: float,
    ) -> None:
        self._db = db
        self._catalog = catalog
        self._runner = runner
        self._active = active
        self._publisher = publisher
        self._live = live
        self._sessions = sessions
        self.worker_id = worker_id
        self._seconds = seconds
        self._concurrent = concurrent
        # A claim that took longer may have met leases that ended while the database hung: they are renewed so often.
        self._claim_seconds = lease_seconds / 3

    def here(self, run: Run, opening: Opening) -> None:
        """Drive a new run in this thread, with nobody listening. Raises what keeps it from beginning, `LeaseLost`, or
        `HandedOver` when another worker is to go on with it."""
        journal = Journal(self._db, run, _nobody, opening=opening)
        with self._active.driving(self._handle(run)) as handle:
            try:
                for _ in self._runner.execute(run, journal, handle):
                    pass
            except HandedOver:
                self._hand_over(run, journal)
                raise

    def listened(
        self, run: Run, opening: Opening, turn: AbstractContextManager[object], listener: Listener
    ) -> tuple[Outbox, Generator[list[RunEvent]]]:
        """Drive a new run in the thread that reads it; what it raises before its first batch keeps it from beginning.

        Read are the events that the listener was not given yet: the first, and those that nobody could write to it.
        The run outlives who reads it: closed before its end, the reading becomes driving. `turn` is left at its end.
        """
        handle = self._handle(run)
        channel = self._publisher.open(run.id, run.attempt, listener, partial(handle.stop, "lost"))
        journal = Journal(self._db, run, channel.put, opening=opening)

        def work() -> Generator[list[RunEvent]]:
            try:
                with turn, self._active.driving(handle):
                    yield from self._heard(run, journal, handle, channel)
            finally:
                channel.close()
            yield channel.take()

        return channel, work()

    def _heard(
        self, run: Run, journal: Journal, handle: Handle, channel: Outbox
    ) -> Generator[list[RunEvent]]:
        """Ends early where the run is no longer driven here: it can be followed then. Raises what keeps it from
        beginning."""
        going = self._runner.execute(run, journal, handle)
        try:
            for _ in going:
                if not channel.written:
                    yield channel.take()
        except GeneratorExit:
            channel.forget()
            self._to_the_end(run, journal, going)
        except HandedOver:
            self._hand_over(run, journal)
        except LeaseLost:
            pass
        except Exception as error:
            if not journal.opened:
                raise
            _tell_given_up(run, error)

    def _to_the_end(self, run: Run, journal: Journal, going: Iterator[RunEvent]) -> None:
        """Drive a run that nobody here listens to."""
        try:
            for _ in going:
                pass
        except HandedOver:
            self._hand_over(run, journal)
        except LeaseLost:
            pass
        except Exception as error:
            _tell_given_up(run, error)

    def _hand_over(self, run: Run, journal: Journal) -> None:
        """Back into the queue with the run; where the database is away it is free once this worker is gone.

        Raises `Overloaded` for a run that had not begun: it has left no trace.
        """
        if not journal.opened:
            raise Overloaded("This worker stops; try again shortly.", retry_after=1)
        try:
            journal.hand_over()
        except LeaseLost:
            pass
        except DatabaseUnavailable:
            log.warning("run_not_handed_over", extra={"run_id": run.id})

    def take_up(self, run_id: str) -> bool:
        """Take a queued or abandoned run and drive it to its end, in this thread. False: it was not to be had."""
        self._catalog.refresh()

        def claim(tx: Transaction) -> Run | None:
            asked = time.monotonic()
            if not rows.claim(tx, run_id, self.worker_id):
                return None
            if time.monotonic() - asked > self._claim_seconds:
                raise _LateClaim
            run = rows.get(tx, run_id)
            if run is not None and not self._sessions.resume(tx, run):
                raise SessionBusy  # it stays in the queue, and is looked at again
            if run is not None:
                self._with_present_version(tx, run)
            return run

        try:
            run = self._db.transact(claim)
        except (SessionBusy, _LateClaim):  # it is looked at again
            return False
        if run is None:
            return False
        self._go_on(run)
        return True

    def _with_present_version(self, tx: Transaction, run: Run) -> None:
        """An attempt uses the agent as it is now, which may have been edited since the run was asked for: say so."""
        agent = self._catalog.agents.get(run.agent)
        if agent is not None and agent.version != run.agent_version:
            run.agent_version = agent.version
            rows.note_version(tx, run)

    def _go_on(self, run: Run) -> None:
        run.resumed = run.attempt > 1
        handle = self._handle(run)
        channel = self._publisher.open(run.id, run.attempt, lost=partial(handle.stop, "lost"))
        try:
            with self._concurrent.counted(run.user_id, run.id, refuse=False), self._active.driving(handle):
                if run.cancel_requested:
                    handle.stop("cancelled")
                journal = self._reopened(run, channel)
                self._to_the_end(run, journal, self._runner.execute(run, journal, handle))
        except LeaseLost:
            log.warning("run_released", extra={"run_id": run.id, "why": "LeaseLost"})
        finally:
            channel.close()

    def take_up_in_background(self, run_id: str) -> bool:
        """The same in a thread of its own, if a slot is free."""
        if not self._active.take():
            return False

        def work() -> None:
            try:
                self.take_up(run_id)
            except DatabaseUnavailable:  # said by `service.store.outages`; the next sweep tries again
                pass
            except Exception:
                log.exception("run_recovery_failed", extra={"run_id": run_id})
            finally:
                self._active.give()

        threading.Thread(target=work, name=f"take-up-{run_id}", daemon=True).start()
        return True

    def _handle(self, run: Run) -> Handle:
        return Handle(run.id, self._seconds, run.attempt)

    def _reopened(self, run: Run, channel: Outbox) -> Journal:
        """The journal of a run taken up. Raises `LeaseLost` when another has taken it up since."""
        # In this order: what earlier attempts keep from now on is refused by the database, what they tell by Redis.
        stream = self._live.take_up(run.id, run.attempt)
        kept = self._db.query(lambda tx: step_rows.of_run(tx, run.id), patience=PATIENCE)
        told = told_before(run, kept, stream)
        return Journal(self._db, run, channel.put, kept=kept, told=told)


def _tell_given_up(run: Run, error: Exception) -> None:
    """Log that this thread leaves a run as it is: the keeper gives it to another worker."""
    if isinstance(error, DatabaseUnavailable):
        log.warning("run_released", extra={"run_id": run.id, "why": "DatabaseUnavailable"})
    else:
        log.error("run_thread_failed", extra={"run_id": run.id}, exc_info=error)


def _nobody(events: Sequence[RunEvent]) -> None:
    """An invoked run has no listener while it goes on."""
