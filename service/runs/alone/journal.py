"""Journal of a run that is stored elsewhere: its steps are kept in memory, and returned as the state of a question."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from service.runs.branch_rows import BranchRows
from service.runs.event_log import EventLog, NewEvent
from service.runs.journal import Journal, Publish
from service.store.transaction import WriteInTransaction
from service.types import Run, RunEvent, now_ms


class UnstoredJournal(Journal):
    """`Journal` whose commits write nothing. `kept`: each step so far, as `stored` takes them."""

    def __init__(self, run: Run, publish: Publish, stored: Sequence[Mapping[str, Any]] = ()) -> None:
        self._run, self._publish, self._opening = run, publish, None
        self._stored = [dict(step) for step in stored]
        self.branch_rows = BranchRows(())
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self.events = EventLog(run, (), None)
        self._step: dict[str, Any] | None = None
        self._writes: list[WriteInTransaction] = []
        self._began = now_ms()
        self.steps = self.branch_steps = 0
        self.kept: list[dict[str, Any]] = []

    def replay(self, kind: str, name: str) -> dict[str, Any] | None:
        reply = super().replay(kind, name)
        if reply is not None:
            self._keep(kind, name, dict(reply))
        return reply

    def add_step(self, kind: str, name: str, reply: dict[str, Any], **spent: Any) -> None:
        super().add_step(kind, name, reply, **spent)
        self._keep(kind, name, reply)

    def commit(
        self, *works: WriteInTransaction, then: Sequence[NewEvent] = (), **ordered: WriteInTransaction
    ) -> list[RunEvent]:
        """Publish the events that waited. Money, claims and the audit are kept where the run is stored."""
        with self._lock:
            return self._committed(self.events.number_waiting(), then)

    def check_owner(self) -> None:
        """Check nothing: the gateway refuses the calls of a run that another attempt executes."""

    def _keep(self, kind: str, name: str, reply: dict[str, Any]) -> None:
        self.kept.append({"kind": kind, "name": name, "reply": reply})
