"""Cancellation of runs, wherever they execute or wait."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from service.errors import NotFound, RunCancelled, RunFinished
from service.runs.result import problem_of, result_of_steps
from service.runs.slots import USER_REFUSED, Slots
from service.sessions import Sessions
from service.store import approvals, users
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.database import Database, Transaction
from service.types import Run, RunStatus, now_ms
from service.webhooks import Webhooks

REFUSED_SECONDS, REFUSED_BATCH = 20.0, 100
WAITING = (RunStatus.QUEUED, RunStatus.WAITING_APPROVAL, RunStatus.WAITING_BUDGET, RunStatus.PAUSED)


@dataclass(frozen=True, slots=True)
class Cancellation:
    """Cancels runs. One per process; `slots` has the runs that execute here."""

    db: Database
    slots: Slots
    sessions: Sessions
    webhooks: Webhooks
    _asked: threading.Event = field(default_factory=threading.Event)
    _cancels: threading.Lock = field(default_factory=threading.Lock)

    def cancel(self, run: Run) -> None:
        """End a waiting run; make the executing thread stop any other, here or on another worker.

        Raises `RunFinished` if the run has ended, and `NotFound`.
        """
        at = now_ms()
        if not self.db.transact(lambda tx: self._end_waiting(tx, run.id, at)):
            self._stop(run.id)

    def of_refused(self) -> None:
        """Cancel the waiting runs of users who are refused, for `REFUSED_SECONDS` at most, in one thread of a process.

        Where one does already, it looks again. Runs that execute are stopped by their workers' supervisors, and those
        left here by whoever claims them.
        """
        end = time.monotonic() + REFUSED_SECONDS
        self._asked.set()
        while self._asked.is_set() and time.monotonic() < end and self._cancels.acquire(blocking=False):
            try:
                self._asked.clear()
                self._of_refused(end)
            finally:
                self._cancels.release()

    def _of_refused(self, end: float) -> None:
        while time.monotonic() < end:
            found = self.db.query(lambda tx: rows.waiting_of_refused(tx, REFUSED_BATCH))
            for run_id in found:
                with suppress(RunFinished, NotFound):  # meanwhile
                    at = now_ms()
                    self.db.transact(lambda tx: self._end_waiting(tx, run_id, at))  # noqa: B023
            if len(found) < REFUSED_BATCH:
                return

    def client_gone(self, run: Run) -> None:
        """Stop a run whose client has disconnected, if its request asks for that (`on_disconnect`)."""
        if run.request.on_disconnect == "cancel":
            self._stop(run.id)

    def _stop(self, run_id: str) -> None:
        if (handle := self.slots.get(run_id)) is not None:
            handle.stop("cancelled")

    def _end_waiting(self, tx: Transaction, run_id: str, at: int) -> bool:
        """Record the cancellation; end the run if no worker holds it. False: a worker does."""
        rows.ask_cancel(tx, run_id)
        run = rows.get(tx, run_id)
        if run is None:  # deleted meanwhile
            raise NotFound(f"There is no run {run_id}.")
        if run.status is RunStatus.CANCELLED and run.finished_at == at:
            return True  # by this same write: the answer to an earlier commit was lost
        if run.status.ended:
            raise RunFinished(f"This run is {run.status} already.")
        if run.status not in WAITING:
            return False
        run.status, run.finished_at = RunStatus.CANCELLED, at
        run.last_seq += 1
        run.error = problem_of(RunCancelled(USER_REFUSED if users.refused(tx, run.user_id) else None), run)
        run.result = result_of_steps(run, step_rows.of_run(tx, run.id))
        if not rows.close(tx, run, WAITING):
            return False
        approvals.close(tx, run.id)
        self.sessions.end(tx, run)
        self.webhooks.schedule(tx, run)
        return True
