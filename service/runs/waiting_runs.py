"""Claims of runs that wait for a worker: one by its id, or the task whose turn it is."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from service.agents.catalog import AgentCatalog
from service.agents.definitions import MODEL_ITSELF
from service.errors import SessionBusy
from service.sessions import Sessions
from service.store import agent_versions, ownership, task_line
from service.store import runs as rows
from service.store.database import Database, Row, Transaction
from service.types import PRIORITIES, Run

HIGH, NORMAL, BATCH = range(len(PRIORITIES))
# Of four turns that a worker gives, three are for `high` first; of five, one for `batch` before `normal`. So none waits
# for ever, whatever is queued before it.
HIGH_LAST_EVERY, BATCH_FIRST_EVERY = 4, 5
TRIES = 50  # at the next task, while others take those of the same user
LONGEST_PAUSE = 0.02  # seconds between two


class LateClaim(Exception):
    """Raised when the database hung during a claim: leases of living workers may have expired meanwhile."""


class _Claimed(NamedTuple):
    """Result of a try; `again`: without a run, though there may be one."""

    run: Run | None = None
    again: bool = False


def orders() -> Iterator[list[int]]:
    """Yield the order of priorities for each turn that a worker gives."""
    for turn in itertools.count(1):
        order = [BATCH, NORMAL] if turn % BATCH_FIRST_EVERY == 0 else [NORMAL, BATCH]
        order.insert(len(order) if turn % HIGH_LAST_EVERY == 0 else 0, HIGH)
        yield order


@dataclass(frozen=True, slots=True)
class WaitingRuns:
    """Claims runs for this worker. One per process; `lease_seconds` is how long a worker's lease lasts."""

    db: Database
    catalog: AgentCatalog
    sessions: Sessions
    worker_id: str
    lease_seconds: float
    _orders: Iterator[list[int]] = field(default_factory=orders)

    def claim(self, run_id: str) -> Run | None:
        """Claim a queued or abandoned run, in the only thread of this process that claims it. None: it is neither.

        Raises `SessionBusy` for a turn whose time has not come, and `LateClaim`.
        """

        def work(tx: Transaction) -> _Claimed:
            run = self._claimed(tx, run_id)
            if run is not None and not self.sessions.resume(tx, run):
                raise SessionBusy  # it stays in the queue for the next sweep
            return _Claimed(run)

        return self._transact(work).run

    def next_task(self) -> Run | None:
        """Claim the task whose turn it is. None: there is none, or none to be had. Raises `LateClaim`."""
        order = next(self._orders)
        for _ in range(TRIES):
            found = self._transact(lambda tx: self._next(tx, order))
            if not found.again:
                return found.run
            time.sleep(random.uniform(0, LONGEST_PAUSE))
        return None

    def needs_no_turn(self, run_id: str) -> bool:
        return self.db.query(lambda tx: task_line.needs_no_turn(tx, run_id))

    def _transact(self, work: Callable[[Transaction], _Claimed]) -> _Claimed:
        claimed: Run | None = None

        def once(tx: Transaction) -> _Claimed:
            nonlocal claimed
            if claimed is not None and self._holds(tx, claimed):  # the answer to an earlier commit was lost
                return _Claimed(rows.get(tx, claimed.id))
            found = work(tx)
            claimed = found.run
            return found

        return self.db.transact(once)

    def _holds(self, tx: Transaction, run: Run) -> bool:
        held = ownership.held(tx, self.worker_id)
        return (run.id, run.attempt) in [(row["id"], row["attempt"]) for row in held]

    def _next(self, tx: Transaction, order: list[int]) -> _Claimed:
        task = task_line.next_task(tx, order)
        if task is None:
            return _Claimed(again=not task_line.is_empty(tx))
        if task["session_id"] is not None and not self._has_session(tx, task):
            task_line.step_aside(tx, task["id"])
            return _Claimed(again=True)
        run = self._claimed(tx, task["id"])
        if run is None:  # its agent was stopped meanwhile
            return _Claimed(again=True)
        task_line.take_turn(tx, task)
        return _Claimed(run)

    def _has_session(self, tx: Transaction, task: Row) -> bool:
        """Take a task's session, if its turn has come; before it is claimed, so that it can wait on as it is."""
        run = rows.get(tx, task["id"])
        return run is not None and self.sessions.resume(tx, run)

    def _claimed(self, tx: Transaction, run_id: str) -> Run | None:
        began = time.monotonic()
        if not rows.claim(tx, run_id, self.worker_id):
            return None
        # Leases are renewed at this interval: after a longer hang, those of other workers may have expired.
        if time.monotonic() - began > self.lease_seconds / 3:
            raise LateClaim
        run = rows.get(tx, run_id)
        if run is not None:
            self._with_present_version(tx, run)
        return run

    def _with_present_version(self, tx: Transaction, run: Run) -> None:
        """Record the agent's version: an attempt uses the current agent, which may have been edited since.

        A run that began under a published version ends under it, and a fork uses that of its run where it is kept.
        """
        if run.agent_version == MODEL_ITSELF:  # no agent of its name takes its place
            return
        agent = self.catalog.agents.get(run.agent)
        if run.request.fork is not None or agent is None or agent.version == run.agent_version:
            return
        if not agent_versions.is_published(tx, run.agent, run.agent_version):
            run.agent_version = agent.version
            rows.note_version(tx, run)
