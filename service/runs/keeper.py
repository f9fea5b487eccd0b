"""One thread per worker process that keeps its promises: the lease, cancellations, recovery, the hand-over."""

from __future__ import annotations

import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable

from service.errors import DatabaseUnavailable
from service.runs.active import ActiveRuns
from service.runs.runs import Runs
from service.store import runs as rows
from service.store import workers
from service.store.base import Database
from service.types import now_ms

log = logging.getLogger("slipway.keeper")
TICK = 0.4  # seconds between looks for cancellations: a run ends well within 2 s of being asked to


class Keeper:
    """`announce` wakes a task worker for a queued task; `redis_up` says whether that can reach one."""

    def __init__(
        self,
        *,
        db: Database,
        runs: Runs,
        active: ActiveRuns,
        worker_id: str,
        kind: str,
        lease_seconds: float,
        sweep_seconds: float,
        announce: Callable[[str], None],
        redis_up: Callable[[], bool],
        draining: Callable[[], bool],
        grace: float,
    ) -> None:
        self._db = db
        self._runs = runs
        self._active = active
        self._worker_id = worker_id
        self._kind = kind
        self._lease = lease_seconds
        self._sweep = sweep_seconds
        self._announce = announce
        self._redis_up = redis_up
        self._draining = draining
        self._grace = grace
        self._stopped = threading.Event()
        self._drain_until: float | None = None
        self._next_renewal = 0.0
        self._next_sweep = time.monotonic() + random.uniform(0, sweep_seconds)

    def start(self) -> None:
        """Register this worker, then keep its promises from a daemon thread."""
        self._renew()
        threading.Thread(target=self._loop, name="keeper", daemon=True).start()

    def stop(self) -> None:
        """Retire: whatever this worker still drives is free for others at once."""
        self._stopped.set()
        try:
            self._db.transact(lambda tx: workers.retire(tx, self._worker_id), patience=1)
        except DatabaseUnavailable:
            log.warning("worker_not_retired")

    def _loop(self) -> None:
        while not self._stopped.wait(TICK):
            try:
                self._tick(time.monotonic())
            except DatabaseUnavailable:
                log.warning("keeper_waits_for_database")
            except Exception:  # this thread must outlive any fault: runs depend on it
                log.exception("keeper_failed")

    def _tick(self, now: float) -> None:
        if now >= self._next_renewal:
            self._renew()
        if self._active.taken:
            for run_id in self._db.query(lambda tx: rows.cancels(tx, self._worker_id), patience=0):
                if (handle := self._active.get(run_id)) is not None:
                    handle.stop("cancelled")
        if self._draining():
            self._hand_over(now)
        elif now >= self._next_sweep:
            self._next_sweep = now + self._sweep * random.uniform(0.8, 1.2)
            self._sweep_runs()

    def _renew(self) -> None:
        lease_ms = int(self._lease * 1000)
        if not self._db.transact(lambda tx: workers.renew(tx, self._worker_id, lease_ms), patience=1):
            host, pid = socket.gethostname(), os.getpid()
            self._db.transact(
                lambda tx: workers.register(tx, self._worker_id, self._kind, host, pid, lease_ms), patience=1
            )
        self._next_renewal = time.monotonic() + self._lease / 3

    def _hand_over(self, now: float) -> None:
        """A stopping worker lets runs finish within its grace; those that cannot go back into the queue."""
        if self._drain_until is None:
            self._drain_until = now + max(1.0, self._grace * 0.7)
        if now >= self._drain_until:
            for handle in self._active.all():
                handle.stop("drain")

    def _sweep_runs(self) -> None:
        """Runs whose worker is gone are taken up; queued tasks that nobody took are announced again."""
        found = self._db.query(lambda tx: (rows.abandoned(tx, 20), rows.waiting(tx, 200)), patience=0)
        abandoned, waiting = found
        for row in abandoned:
            self._runs.take_up_in_background(row["id"])
        tasks = [row["id"] for row in waiting if row["door"] == "task"]
        for row in waiting:
            if row["door"] != "task":
                self._runs.take_up_in_background(row["id"])
        if tasks and self._redis_up():
            self._db.transact(lambda tx: rows.announced(tx, tasks, now_ms() + int(self._sweep * 3000)), patience=1)
            for run_id in tasks:
                self._announce(run_id)
        elif self._kind == "web":
            for run_id in tasks:  # no message can reach a task worker: this one does it, slots allowing
                self._runs.take_up_in_background(run_id)
        self._db.transact(lambda tx: workers.sweep(tx, 3_600_000), patience=1)
