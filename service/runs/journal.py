"""Journal of a run: numbers and publishes its events, and stores each step before the next one starts.

A finished step is written in the transaction that begins the next one (or ends the run), so a run of n steps costs n +
1 transactions. Events about a stored step (`usage`, `tool.called`, …) are published after it.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.errors import AgentStopped
from service.runs.branch_rows import BranchRows, branch_of
from service.runs.event_log import EventLog, NewEvent
from service.runs.replay import Replay
from service.runs.slots import LeaseLost
from service.runs.step_row import call_ids, step_row, waited_of, with_events
from service.store import ownership
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.database import Database, Row, Transaction
from service.store.steps import NOTE
from service.store.transaction import WriteInTransaction
from service.text.sanitise import storable_json
from service.types import NO_USAGE, Event, Run, RunEvent, RunStatus, Usage, UsageSource, less_sure, now_ms

Opening = Callable[[Transaction], bool]  # writes the run's row; False: it exists already
Publish = Callable[[Sequence[RunEvent]], None]
FinalEvent = Callable[[], tuple[Event, dict[str, Any]]]
ReleaseCheck = Callable[[Transaction, Run, int], bool]  # releases the run; False: another worker owns it
HAND_OVER_PATIENCE = 2.0  # seconds; all a stopping worker has, and its runs are released once it is gone
PATIENCE = 30.0  # seconds a run waits for a restarting database, rather than lose its step


def _nothing(tx: Transaction) -> None:
    pass


class Journal:
    """Journal of one attempt at a run. Every write is fenced by the attempt: raises `LeaseLost` when it is stale.

    `opening` writes the run's row, in the first transaction; `stored` are the steps of earlier attempts, `replay` the
    events they published after the last of them.
    """

    def __init__(
        self,
        db: Database,
        run: Run,
        publish: Publish,
        *,
        opening: Opening | None = None,
        stored: Sequence[Row] = (),
        replay: Replay | None = None,
    ) -> None:
        self._db = db
        self._run = run
        self._publish = publish
        self._opening = opening
        self._stored = [row for row in stored if row["kind"] != NOTE and branch_of(row) is None]
        self.branch_rows = BranchRows(stored)
        self.waited = waited_of(stored)  # the last wait for a budget, as its note says
        self._numbers = itertools.count(1 + max((row["n"] for row in stored), default=0))
        self._lock = threading.RLock()  # sub-agents write side by side: events are published in their order
        self.events = EventLog(run, stored, replay)
        self._step: dict[str, Any] | None = None
        self._writes: list[WriteInTransaction] = []
        self._began = now_ms()
        self.steps = 0  # steps done so far, including replayed ones
        self.branch_steps = 0  # … by sub-agents
        self.branch = ""  # of a sub-agent; empty: these are the steps of the run's own agent

    @property
    def opened(self) -> bool:
        """Return whether the run is in the database: before that, a failure leaves no trace."""
        return self._opening is None

    @property
    def has_writes(self) -> bool:  # that wait for the next transaction
        return bool(self._writes)

    def is_stored(self, kind: str, name: str) -> bool:
        """Return whether an earlier attempt has stored the next step, as this one."""
        step = self._stored[self.steps] if self.steps < len(self._stored) else None
        return step is not None and (step["kind"], step["name"]) == (kind, name)

    @property
    def all_steps(self) -> int:
        """Number of steps done, with those of sub-agents."""
        return self.steps + self.branch_steps

    @property
    def known_steps(self) -> int:
        """Number of steps done, including those this attempt has not replayed yet."""
        return max(self.all_steps, len(self._stored) + self.branch_rows.steps)

    @property
    def call_prefix(self) -> str:
        """Beginning of the ids of calls that no model asked for."""
        return "call_"

    def owns_call(self, call_id: str) -> bool:
        """Return whether a tool call is of these steps, and not of a sub-agent's."""
        return not call_id.startswith("branch_") and call_id not in self.branch_rows.call_ids

    def stored_call_ids(self) -> set[str]:
        """Return the ids of all tool calls in the stored replies of models."""
        return call_ids(self._stored)

    def make_storable(self) -> None:
        """Replace text that cannot be encoded by U+FFFD in all pending writes: the last resort to end a run."""
        self.events.make_storable()
        if self._step is not None:
            self._step = {**self._step, "reply": storable_json(self._step["reply"])}

    def replay(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return the stored reply of the next step; None when the step has yet to be made."""
        if not self.is_stored(kind, name):  # if another step is, the agent was changed while the run waited
            self._stored = self._stored[: self.steps]
            self.branch_rows.forget()
            return None
        self.steps += 1
        return dict(self._stored[self.steps - 1]["reply"])

    def publish(self, name: Event, data: Mapping[str, Any]) -> list[RunEvent]:
        """Number and publish an event. Empty: clients got it before a crash."""
        with self._lock:
            events = self.events.add(name, data)
            if events:
                self._publish(events)
            return events

    def publish_after_commit(self, name: Event, data: Mapping[str, Any]) -> None:
        """Publish an event once the next transaction has succeeded."""
        self.events.add_after_commit(name, data)

    def write_with_next(self, write: WriteInTransaction) -> None:
        """Add a write to the next transaction."""
        self._writes.append(write)

    def add_step(
        self,
        kind: str,
        name: str,
        reply: dict[str, Any],
        *,
        usage: Usage = NO_USAGE,
        cost_nano: int = 0,
        source: UsageSource = "reported",
    ) -> None:
        """Store a finished step, with the next transaction."""
        self.spent(usage, cost_nano, source)
        self._step = self._row(kind, name, reply, cost_nano)
        self.steps += 1

    def spent(self, usage: Usage, cost_nano: int, source: UsageSource) -> None:
        """Add usage to the run, whether its step is stored or not."""
        with self._lock:
            self._run.usage_source = less_sure(self._run.usage_source, source)
            self._run.usage = self._run.usage.plus(usage)
            self._run.cost_nano += cost_nano

    def commit(
        self,
        *works: WriteInTransaction,
        first: WriteInTransaction = _nothing,
        last: WriteInTransaction = _nothing,
        then: Sequence[NewEvent] = (),
    ) -> list[RunEvent]:
        """Commit the run's row, the finished step and `works`, then publish the events that waited for the commit.

        Pending writes come after `works`, as they lock counters that others wait for; `first` is before them, `last`
        after. `then`: events of what the commit begins, published together with those, but numbered only now: a
        transaction that is given up has told nothing of it.
        """
        with self._lock:
            after = self.events.number_waiting()
            step = self._finished_step()

            def work(tx: Transaction) -> None:
                if not self._write(tx, step) and not rows.progress(tx, self._run, self._run.attempt):
                    raise LeaseLost
                for write in (*works, first, *self._writes, last):
                    write(tx)

            self._db.transact(work, patience=PATIENCE if self.opened else None)
            return self._committed(after, then)

    def commit_finished(self) -> list[RunEvent]:
        """Commit a finished step and pending writes, where there are any."""
        return self.commit() if self._step is not None or self._writes else []

    def finish(self, status: RunStatus, last: FinalEvent, *works: WriteInTransaction) -> list[RunEvent]:
        """Write the run's last transaction, then publish its last event; `last` builds it once the usage is final."""
        after = self.events.number_waiting()
        run = self._run
        run.status = status
        run.finished_at = now_ms()
        step = self._finished_step(note=status)
        run.last_seq += 1
        final = RunEvent(*last(), run.last_seq)

        def work(tx: Transaction) -> None:
            self._write(tx, step)
            if not rows.finish(tx, run, run.attempt):
                raise LeaseLost
            for write in (*works, *self._writes):
                write(tx)

        try:
            self._db.transact(work, patience=PATIENCE)
        except Exception:
            run.last_seq -= 1  # else a second try would skip a number
            raise
        return self._committed([*after, final])

    def suspend(self, *works: WriteInTransaction) -> list[RunEvent]:
        """Leave the run waiting for an approval, held by no worker."""
        return self.leave(RunStatus.WAITING_APPROVAL, rows.suspend, works)

    def park(self) -> list[RunEvent]:
        """Leave the run in the queue until it is woken, held by no worker."""
        return self.leave(RunStatus.QUEUED, rows.park)

    def hand_over(self) -> list[RunEvent]:
        """Return the run to the queue, for another worker to claim at once."""
        return self.leave(RunStatus.QUEUED, rows.release, patience=HAND_OVER_PATIENCE)

    def leave(
        self,
        status: RunStatus,
        release: ReleaseCheck,
        works: Sequence[WriteInTransaction] = (),
        *,
        about: dict[str, Any] | None = None,
        patience: float = PATIENCE,
    ) -> list[RunEvent]:
        """Store the run's progress and release it. A final note, with `about`, says that all its events are stored."""
        after = self.events.number_waiting()
        step = self._finished_step()
        note = self._row(NOTE, status, about or {}, 0)
        note = self._with_events(note, [] if step else self.events.unstored)

        def work(tx: Transaction) -> None:
            self._write(tx, step)
            step_rows.insert(tx, note, self._run.user_id)
            if not release(tx, self._run, self._run.attempt):
                raise LeaseLost
            for write in (*works, *self._writes):
                write(tx)

        self._db.transact(work, patience=patience)
        self._run.status = status
        return self._committed(after)

    def check_owner(self) -> None:
        """Check ownership, and that the agent is not stopped, before a call that no transaction begins.

        Raises `LeaseLost` when another worker has claimed the run since this one's last write, and `AgentStopped`.
        """
        run = self._run
        owned = self._db.query(lambda tx: ownership.owned_by(tx, run.id, run.attempt), patience=PATIENCE)
        if owned is None:
            raise LeaseLost
        if owned["stopped"]:
            raise AgentStopped(f"The agent {run.agent} is stopped.")

    def _write(self, tx: Transaction, step: dict[str, Any] | None) -> bool:
        """Open the run, and store the finished step. True: the run's row is new, and up to date."""
        new = self._opening is not None and self._opening(tx)
        if step is not None:
            step_rows.insert(tx, step, self._run.user_id)
        return new

    def _finished_step(self, note: str = "") -> dict[str, Any] | None:
        """Return the finished step with the events published in it; without one, a note that stores only the events."""
        step = self._step
        if step is None and note and self.events.unstored:
            step = self._row(NOTE, note, {}, 0)
        return None if step is None else self._with_events(step, self.events.unstored)

    def _with_events(self, step: dict[str, Any], events: Sequence[RunEvent]) -> dict[str, Any]:
        return with_events(step, events, self._run.last_seq)

    def _row(self, kind: str, name: str, reply: dict[str, Any], cost_nano: int) -> dict[str, Any]:
        row = step_row(self._run, kind, name, reply, cost_nano=cost_nano, began=self._began)
        return {**row, "n": next(self._numbers)}

    def _committed(self, after: list[RunEvent], then: Sequence[NewEvent] = ()) -> list[RunEvent]:
        if self._step is not None:
            self._began = now_ms()
        self.events.committed(step=self._step is not None)
        self._step, self._writes, self._opening = None, [], None
        events = [*after, *(event for name, data in then for event in self.events.add(name, data))]
        if events:
            self._publish(events)
        return events
