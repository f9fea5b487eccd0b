"""Execution of runs by this worker: new ones in their request's thread, others claimed from the database."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial

from service.agents.catalog import AgentCatalog
from service.errors import DatabaseUnavailable, Overloaded, SessionBusy, WorkerLost
from service.runs.attempt import Attempt, StaleAnswer
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.outbox import Listener, Outbox
from service.runs.events.publisher import Publisher
from service.runs.events.recovered import replay_of
from service.runs.journal import PATIENCE, Journal, Opening
from service.runs.relay_step import LOST
from service.runs.relayed_call import RelayedCall
from service.runs.result import problem_of
from service.runs.runner import Runner
from service.runs.slots import HandedOver, Handle, LeaseLost, Reason, Slots
from service.runs.waiting_runs import LateClaim, WaitingRuns
from service.store import steps as step_rows
from service.store import users
from service.store.actor import Actor, acting_as
from service.store.database import Database
from service.types import Run, RunEvent
from service.usage.concurrency import ConcurrentRuns

log = logging.getLogger("slipway.runs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """Executes runs under this worker's lease. One per process; `seconds` is the longest a run may take."""

    db: Database
    catalog: AgentCatalog
    runner: Runner
    slots: Slots
    publisher: Publisher
    event_streams: EventStreamReader
    concurrent: ConcurrentRuns
    waiting: WaitingRuns
    worker_id: str
    seconds: float

    def execute(self, run: Run, opening: Opening, stale_answer: StaleAnswer = None) -> Attempt:
        """Execute a new run in this thread, without a client that follows its events.

        Raises the reason it cannot begin, `LeaseLost`, or `HandedOver` when another worker is to continue it.
        """
        journal = Journal(self.db, run, _publish_nothing, opening=opening)
        attempt = Attempt(run, journal, self._handle(run), stale_answer=stale_answer)
        with self._executing(run, attempt.handle):
            try:
                for _ in self.runner.execute(attempt):
                    pass
            except HandedOver:
                self._hand_over(attempt)
                raise
        return attempt

    def stream(
        self,
        run: Run,
        opening: Opening,
        until_end: AbstractContextManager[object],
        listener: Listener,
        stale_answer: StaleAnswer = None,
    ) -> tuple[Outbox, Generator[list[RunEvent]]]:
        """Execute a new run in the thread that reads the generator; its first batch may raise why it cannot begin.

        Yields events not yet given to the listener: the first, and those no other thread could write to it. The run
        outlives its reader: closing the generator before the run's end executes the rest. `until_end` is entered while
        the run executes here.
        """
        handle = self._handle(run)
        outbox = self.publisher.open(run.id, run.attempt, listener, partial(handle.stop, "lost"))
        journal = Journal(self.db, run, outbox.put, opening=opening)
        attempt = Attempt(run, journal, handle, stale_answer=stale_answer)

        def read() -> Generator[list[RunEvent]]:
            try:
                with until_end, self._executing(run, handle):
                    yield from self._unwritten(attempt, outbox)
            finally:
                outbox.close()
            yield outbox.take()

        return outbox, read()

    def relay(
        self,
        run: Run,
        opening: Opening,
        relayed: RelayedCall,
        until_end: AbstractContextManager[object],
    ) -> Generator[bytes]:
        """Execute a relayed run in the thread that reads the generator, and yield the pieces of its answer.

        The first may raise why it cannot begin. A client that leaves ends the run: closing the generator cancels it.
        One that this worker gives up has failed for its client, and will have for everybody.
        """
        handle = self._handle(run)
        journal = Journal(self.db, run, _publish_nothing, opening=opening)
        attempt = Attempt(run, journal, handle, relayed=relayed)
        with until_end, self._executing(run, handle):
            execution = self.runner.execute(attempt)
            try:
                for _ in execution:
                    yield from relayed.take()
            except GeneratorExit:
                handle.stop("cancelled")
                self._to_the_end(attempt, execution)
            except HandedOver:
                self._hand_over(attempt)
                run.error = problem_of(WorkerLost(LOST), run)
            except LeaseLost:
                run.error = problem_of(WorkerLost(LOST), run)
            except Exception as error:
                if not journal.opened:
                    raise
                _log_given_up(run, error)
                run.error = problem_of(WorkerLost(LOST), run)

    def _unwritten(self, attempt: Attempt, outbox: Outbox) -> Generator[list[RunEvent]]:
        """Execute the run; yield events that no other thread writes to the client yet.

        Ends early when the run leaves this worker; it can then be followed. Raises the reason it cannot begin.
        """
        execution = self.runner.execute(attempt)
        try:
            for _ in execution:
                if not outbox.written:
                    yield outbox.take()
        except GeneratorExit:
            outbox.forget()
            self._to_the_end(attempt, execution)
        except HandedOver:
            self._hand_over(attempt)
        except LeaseLost:
            pass
        except Exception as error:
            if not attempt.journal.opened:
                raise
            _log_given_up(attempt.run, error)

    def _to_the_end(self, attempt: Attempt, execution: Iterator[RunEvent]) -> None:
        """Execute a run without a client here."""
        try:
            for _ in execution:
                pass
        except HandedOver:
            self._hand_over(attempt)
        except LeaseLost:
            pass
        except Exception as error:
            _log_given_up(attempt.run, error)

    def _hand_over(self, attempt: Attempt) -> None:
        """Return the run to the queue; without the database, it is released once this worker is gone.

        Raises `Overloaded` for a run that had not begun, which has left no trace.
        """
        if not attempt.journal.opened:
            raise Overloaded("This worker stops; try again shortly.", retry_after=1)
        try:
            attempt.journal.hand_over()
        except LeaseLost:
            pass
        except DatabaseUnavailable:
            log.warning("run_not_handed_over", extra={"run_id": attempt.run.id})

    def take_up(self, run_id: str) -> bool:
        """Claim a queued or abandoned run and execute it to its end, in this thread. False: it could not be claimed."""
        self.catalog.refresh()
        try:
            with self.slots.claiming(run_id) as alone:
                run = self.waiting.claim(run_id) if alone else None
        except (SessionBusy, LateClaim):  # the next sweep tries again
            return False
        if run is None:
            return False
        self._resume(run)
        return True

    def take_turn(self, woken_for: str) -> bool:
        """Execute the task whose turn it is, to its end, in this thread. False: there is none.

        A wake-up is for one turn, whoever's it is; but the run that it names goes first if it needs none.
        """
        if self.waiting.needs_no_turn(woken_for) and self.take_up(woken_for):
            return True
        self.catalog.refresh()
        try:
            run = self.waiting.next_task()
        except LateClaim:
            return False
        if run is None:
            return False
        self._resume(run)
        return True

    def _resume(self, run: Run) -> None:
        handle = self._handle(run)
        outbox = self.publisher.open(run.id, run.attempt, lost=partial(handle.stop, "lost"))
        try:
            with (
                self.concurrent.counted(run.user_id, run.id, refuse=False),
                self._executing(run, handle),
            ):
                if run.cancel_requested:
                    handle.stop(self._why_cancelled(run))
                attempt = Attempt(run, self._reopened(run, outbox), handle)
                self._to_the_end(attempt, self.runner.execute(attempt))
        except LeaseLost:
            log.warning("run_released", extra={"run_id": run.id, "why": "LeaseLost"})
        finally:
            outbox.close()

    def _why_cancelled(self, run: Run) -> Reason:
        """Find why a claimed run is to end: the claim cancels those of refused users too."""
        refused = self.db.query(lambda tx: users.refused(tx, run.user_id), patience=PATIENCE)
        return "refused" if refused else "cancelled"

    def take_up_in_background(self, run_id: str) -> bool:
        """Claim and execute a run in a new thread. False: no slot is free, or no thread can be started."""
        return self._in_background(self.take_up, run_id)

    def take_turn_in_background(self, woken_for: str) -> bool:
        """Execute the task whose turn it is in a new thread. False as for `take_up_in_background`."""
        return self._in_background(self.take_turn, woken_for)

    def _in_background(self, take: Callable[[str], bool], run_id: str) -> bool:
        if not self.slots.take():
            return False

        def work() -> None:
            try:
                take(run_id)
            except DatabaseUnavailable:  # logged by `service.store.outages`; the next sweep tries again
                pass
            except Exception:
                log.exception("run_recovery_failed", extra={"run_id": run_id})
            finally:
                self.slots.give()

        try:
            threading.Thread(target=work, name=f"take-up-{run_id}", daemon=True).start()
        except RuntimeError:  # the next sweep tries again
            self.slots.give()
            log.exception("run_recovery_failed", extra={"run_id": run_id})
            return False
        return True

    @contextmanager
    def _executing(self, run: Run, handle: Handle) -> Iterator[None]:
        """Register a run while it executes here; its user is the actor, in whichever thread that is."""
        with acting_as(Actor.of(run)), self.slots.executing(handle):
            yield

    def _handle(self, run: Run) -> Handle:
        return Handle(run.id, self.seconds, run.attempt)

    def _reopened(self, run: Run, outbox: Outbox) -> Journal:
        """Reopen the journal of a resumed run. Raises `LeaseLost` when another worker has claimed it since."""
        # Order matters: the database already refuses earlier attempts' steps, from here on Redis their events.
        stream = self.event_streams.take_up(run.id, run.attempt)
        steps = self.db.query(lambda tx: step_rows.of_run(tx, run.id), patience=PATIENCE)
        replay = replay_of(run, steps, stream)
        return Journal(self.db, run, outbox.put, stored=steps, replay=replay)


def _log_given_up(run: Run, error: Exception) -> None:
    """Log that this thread gives up a run: the supervisor assigns it to another worker."""
    if isinstance(error, DatabaseUnavailable):
        log.warning("run_released", extra={"run_id": run.id, "why": "DatabaseUnavailable"})
    else:
        log.error("run_thread_failed", extra={"run_id": run.id}, exc_info=error)


def _publish_nothing(events: Sequence[RunEvent]) -> None:
    """Discard events: an invoked run has no followers while it executes."""
