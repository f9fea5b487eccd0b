"""Supervisor thread of a worker process: renews its lease, stops cancelled runs, recovers lost ones, hands over."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Literal, NamedTuple, Protocol

from service.errors import DatabaseUnavailable
from service.runs.execution import Execution
from service.runs.slots import Handle
from service.store import ownership, sweep, workers
from service.store import runs as rows
from service.store.database import Database, Transaction
from service.store.sweep import Work
from service.types import mode_of, now_ms

log = logging.getLogger("slipway.supervisor")
TICK = 0.4  # seconds between checks for cancellations: a cancelled run ends well within 2 s
HAND_OVER = 3.0  # seconds for handing over runs still executing at the very end
UNDRIVEN = 10.0  # seconds from claiming a run to executing it, beyond any hang of database or Redis
SWEEP_TASKS = 200  # queued tasks per sweep


class Wakeup(Protocol):
    """Wake-ups for task workers. Never raises, and never takes long."""

    def ring(self, run_ids: Sequence[str]) -> bool:
        """Wake one worker per run, for one turn. False: none can be reached; the rows wait for the sweep."""

    def waiting(self) -> int | None:
        """Count wake-ups not consumed yet; None: no worker can be reached."""


class NoWakeup:
    """Null wake-up, without a broker: the sweep of the web processes executes the tasks."""

    def ring(self, run_ids: Sequence[str]) -> bool:
        return False

    def waiting(self) -> int | None:
        return None


class ProcessRole(NamedTuple):
    """Kind of a process, its wake-ups, and whether it is stopping. Kind `cli` claims no runs."""

    kind: Literal["web", "task", "cli"] = "web"
    wakeup: Wakeup = NoWakeup()
    draining: Callable[[], bool] = lambda: False


WEB = ProcessRole("web")  # without a broker


class Times(NamedTuple):
    """Times of a supervisor, in seconds."""

    lease: float
    sweep: float  # between sweeps
    grace: float  # from the stop signal to the end


class Chore(NamedTuple):
    """Work for the sweep: `run` is called when the database has some of that kind; None: at each sweep."""

    run: Callable[[], object]
    work: Work | None = None


class Supervisor:
    """Supervises this process. `chores` are done by the sweep."""

    def __init__(
        self,
        db: Database,
        execution: Execution,
        role: ProcessRole,
        times: Times,
        chores: Sequence[Chore],
    ) -> None:
        self._db = db
        self._execution = execution
        self._slots = execution.slots
        self._worker_id = execution.worker_id
        self._kind, self._wakeup, self._draining = role
        self._lease, self._sweep, self._grace = times
        self._chores = list(chores)
        self.state: Callable[[], Mapping[str, Any] | None] = lambda: (
            None
        )  # of this process, kept with its lease
        self._stopped = threading.Event()
        self._drain_until: float | None = None
        self._orphans: dict[tuple[str, int], float] = {}  # by run and attempt: time.monotonic(), first seen
        self._next_renewal = 0.0
        self._renewed_at = self._cut_off_at = time.monotonic()  # when it last had no lease, or started
        self._next_sweep = time.monotonic() + random.uniform(0, times.sweep)

    def add(self, chore: Chore) -> None:
        """Add a chore of a domain that is built on the runs; before `start`."""
        self._chores.append(chore)

    def hurry(self) -> None:
        """Have the next sweep done at the next tick."""
        self._next_sweep = 0.0

    def start(self) -> None:
        """Register this worker, then supervise it from a daemon thread."""
        with suppress(DatabaseUnavailable):  # the thread keeps trying; `service.store.outages` logs why
            self._renew()
        threading.Thread(target=self._loop, name="supervisor", daemon=True).start()

    def stop(self) -> None:
        """Retire this worker: its runs are handed over, or else are free for others at once."""
        end = time.monotonic() + HAND_OVER
        while (executing := self._slots.all()) and time.monotonic() < end:
            for handle in executing:
                handle.stop("drain")
            time.sleep(0.05)
        self._stopped.set()
        try:
            self._db.transact(lambda tx: workers.retire(tx, self._worker_id), patience=1)
        except DatabaseUnavailable:
            log.warning("worker_row_not_deleted")

    def workers_alive(self, kind: str) -> int:
        """Count the processes of a kind (`web`, `task`) that hold a lease."""
        return self._db.query(partial(workers.alive, kind=kind), patience=0)

    def _loop(self) -> None:
        while not self._stopped.wait(TICK):
            try:
                self._tick(time.monotonic())
            except DatabaseUnavailable:  # logged once, with its cause, not at every tick
                self._cut_off_at = time.monotonic()
            except Exception:  # this thread must survive any fault: runs depend on it
                log.exception("supervisor_failed")

    def _note_hang(self, since: float) -> None:
        """Mark this worker as cut off after a database hang: leases of living workers may have expired meanwhile."""
        if time.monotonic() - since > self._lease / 3:
            self._cut_off_at = time.monotonic()

    def _tick(self, now: float) -> None:
        began = time.monotonic()
        if now >= self._next_renewal:
            self._renew()
        if executing := self._slots.all():
            self._stop_unwanted(executing)
        self._note_hang(began)
        if self._draining():
            self._hand_over(now)
        elif now >= self._next_sweep and self._kind != "cli":
            self._next_sweep = now + self._sweep * random.uniform(0.8, 1.2)
            self._do_due_work(now)

    def _do_due_work(self, now: float) -> None:
        """Ask once for the kinds of work that are due, and do those: an idle worker has none."""
        asked = time.monotonic()
        due = self._db.query(lambda tx: sweep.due(tx, self._worker_id), patience=0, priority=True)
        self._note_hang(asked)
        if Work.ABANDONED_RUNS in due:
            self._recover(now)
        if Work.QUEUED_RUNS in due:
            self._announce()
        if Work.HELD_RUNS in due:
            self._disown(now)
        if Work.DEAD_WORKERS in due:
            self._db.transact(workers.sweep, patience=1, priority=True)
        for chore in self._chores:
            if chore.work is None or chore.work in due:
                chore.run()

    def _stop_unwanted(self, executing: Sequence[Handle]) -> None:
        """Stop runs that were cancelled, whose user is refused, or that another worker has taken over."""
        held = {
            row["id"]: row
            for row in self._db.query(
                lambda tx: ownership.held(tx, self._worker_id), patience=0, priority=True
            )
        }
        elsewhere = []
        for handle in executing:
            row = held.get(handle.run_id)
            if row is None or row["attempt"] != handle.attempt:
                elsewhere.append(handle)
            elif row["refused"]:
                handle.stop("refused")
            elif row["cancel_requested"]:
                handle.stop("cancelled")
        if elsewhere:  # lost, not yet begun, or just ended
            ids = [handle.run_id for handle in elsewhere]
            latest = self._db.query(lambda tx: ownership.attempts(tx, ids), patience=0, priority=True)
            for handle in elsewhere:
                if latest.get(handle.run_id, 0) > handle.attempt:
                    log.warning("lease_lost", extra={"run_id": handle.run_id, "attempt": handle.attempt})
                    handle.stop("lost")

    def _renew(self) -> None:
        """Renew the lease. Raises `DatabaseUnavailable`."""
        began = time.monotonic()
        try:
            self._renew_lease()
        except DatabaseUnavailable:
            self._cut_off_at = time.monotonic()
            raise
        now = time.monotonic()
        if now - self._renewed_at > self._lease:
            self._cut_off_at = now
        self._renewed_at, self._next_renewal = began, now + self._lease / 3

    def _renew_lease(self) -> None:
        lease_ms, host, pid = int(self._lease * 1000), socket.gethostname(), os.getpid()
        renewed = partial(workers.renew, worker_id=self._worker_id, lease_ms=lease_ms, state=self._told())

        def register(tx: Transaction) -> None:
            workers.register(tx, self._worker_id, self._kind, host, pid, lease_ms)
            renewed(tx)

        if not self._db.transact(renewed, patience=1, priority=True):
            self._db.transact(register, patience=1, priority=True)

    def _told(self) -> Mapping[str, Any] | None:
        try:
            return self.state()
        except Exception:  # the lease does not depend on it
            log.exception("state_not_told")
            return None

    def _hand_over(self, now: float) -> None:
        """Let runs finish within a stopping worker's grace period, then return the others to the queue."""
        if self._drain_until is None:
            self._drain_until = now + max(1.0, self._grace * 0.7)
        if now >= self._drain_until:
            for handle in self._slots.all():
                handle.stop("drain")

    def _recover(self, now: float) -> None:
        """Claim runs whose worker is gone.

        A worker that was itself cut off from the database first gives the others one lease time to renew theirs.
        """
        began = time.monotonic()
        abandoned = self._db.query(lambda tx: rows.abandoned(tx, 20), patience=0, priority=True)
        self._note_hang(began)
        if now - self._cut_off_at >= self._lease:
            for row in abandoned:
                self._execution.take_up_in_background(row["id"])

    def _announce(self) -> None:
        """Execute queued runs that are due; wake task workers for tasks not taken yet."""
        waiting = self._db.query(lambda tx: rows.waiting(tx, SWEEP_TASKS), patience=0, priority=True)
        for row in waiting:
            if mode_of(row["door"]) != "queue":
                self._execution.take_up_in_background(row["id"])
        if tasks := [row["id"] for row in waiting if mode_of(row["door"]) == "queue"]:
            self._wake(tasks)

    def _wake(self, tasks: list[str]) -> None:
        """Resend lost messages, but not for tasks that merely wait their turn."""
        messages = self._wakeup.waiting()
        if messages is not None and messages >= len(tasks):
            return
        if messages is not None:
            later = now_ms() + int(self._sweep * 3000)
            self._db.transact(lambda tx: rows.announced(tx, tasks, later), patience=1)
            if self._wakeup.ring(tasks):
                return
        if self._kind == "web":  # no task worker reachable: leave callers half the slots
            for run_id in tasks:
                half_taken = self._slots.taken * 2 >= self._slots.slots
                if half_taken or not self._execution.take_turn_in_background(run_id):
                    self._next_sweep = time.monotonic() + TICK  # more tasks remain
                    return

    def _disown(self, now: float) -> None:
        """Abandon runs that are assigned to this worker but executed by no thread here; each counts as a loss."""
        executing = {handle.run_id for handle in self._slots.all()}
        held = self._db.query(lambda tx: ownership.held(tx, self._worker_id), patience=0, priority=True)
        orphans = [(row["id"], row["attempt"]) for row in held if row["id"] not in executing]
        self._orphans = {orphan: self._orphans.get(orphan, now) for orphan in orphans}
        for (run_id, attempt), since in self._orphans.items():
            if now - since > UNDRIVEN:
                log.error("run_orphaned", extra={"run_id": run_id, "attempt": attempt})
                self._db.transact(
                    partial(rows.abandon, run_id=run_id, attempt=attempt), patience=1, priority=True
                )
