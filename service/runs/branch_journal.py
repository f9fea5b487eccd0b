"""Journal of a sub-agent: steps of one branch, in the rows and under the lock of its run's journal.

Steps of branches are stored in the order in which they end, and replayed by branch, each from its own rows. A step is
committed when it ends: which branch begins the next one is not known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.runs.branch_rows import AGENT, GATEWAY, BranchRows
from service.runs.event_log import BranchEvents, NewEvent
from service.runs.journal import Journal
from service.runs.step_row import step_row
from service.store.transaction import WriteInTransaction
from service.types import RunEvent, now_ms

MAX_NAME = 128  # characters of a step's name


class BranchJournal(Journal):
    """Journal of the branch with this number. `questions`: writes and events of approvals that its tool calls need."""

    def __init__(self, whole: Journal, agent: str, branch: str) -> None:
        self._db, self._run, self._publish = whole._db, whole._run, whole._publish
        self._lock, self._numbers = whole._lock, whole._numbers
        self._whole, self._agent, self.branch = whole, agent, branch
        self._opening = None
        self._stored = whole.branch_rows.of(branch)
        self.branch_rows = BranchRows(())
        self.events = self._events = BranchEvents(whole.events, agent, branch)
        self._step: dict[str, Any] | None = None
        self._writes: list[WriteInTransaction] = []
        self._began = now_ms()
        self.steps = self.branch_steps = 0
        self.questions: tuple[list[WriteInTransaction], list[NewEvent]] = ([], [])

    @property
    def result(self) -> dict[str, Any] | None:
        """Return the stored result of the sub-agent; None: it has not ended."""
        last = self._stored[-1] if self._stored else None
        return dict(last["reply"]) if last is not None and last["kind"] == AGENT else None

    @property
    def call_prefix(self) -> str:
        return f"branch_{self.branch}_call_"

    def owns_call(self, call_id: str) -> bool:
        return call_id.startswith(self.call_prefix)

    def is_stored(self, kind: str, name: str) -> bool:
        return super().is_stored(kind, self._full(name))

    def replay(self, kind: str, name: str) -> dict[str, Any] | None:
        stored = super().replay(kind, name)
        if stored is not None:
            self._count_in_run()
        return stored

    def add_step(self, kind: str, name: str, reply: dict[str, Any], **spent: Any) -> None:
        super().add_step(kind, name, reply, **spent)
        if kind != AGENT:
            self._count_in_run()

    @property
    def known_in_run(self) -> int:
        """Number of steps of the whole run, done or stored."""
        return self._whole.known_steps

    def count_stored(self) -> None:
        """Count the stored steps of a branch that is not replayed: others than a pattern have made them."""
        for _ in self._stored:
            self._count_in_run()

    def _count_in_run(self) -> None:
        with self._lock:
            self._whole.branch_steps += 1

    def suspend(self, *works: WriteInTransaction) -> list[RunEvent]:
        """Keep the questions of this branch for the transaction in which its run begins to wait for all of them.

        An approval that was there before could be decided while the run still executes, and nobody would wake it.
        """
        self.questions = ([*works], self._events.take_waiting())
        return self.commit_finished()

    def _finished_step(self, note: str = "") -> dict[str, Any] | None:
        if self._step is None:
            return None
        # Numbered now, so that rows have the order of the events in them.
        return {**self._with_events(self._step, self._whole.events.unstored), "n": next(self._numbers)}

    def _row(self, kind: str, name: str, reply: dict[str, Any], cost_nano: int) -> dict[str, Any]:
        marked = {**reply, "branch": self.branch}
        return step_row(self._run, kind, self._full(name), marked, cost_nano=cost_nano, began=self._began)

    def _full(self, name: str) -> str:
        return f"{self._agent} {self.branch} / {name}"[:MAX_NAME]


def gateway_journal(journal: Journal, agent: str) -> BranchJournal:
    """Return the journal of an agent's gateway calls, beside its own steps; those that are stored are counted."""
    if isinstance(journal, BranchJournal):
        beside = BranchJournal(journal._whole, agent, f"{journal.branch}{GATEWAY}")
    else:
        beside = BranchJournal(journal, agent, GATEWAY)
    beside.count_stored()
    return beside


def questions_of(
    journals: Sequence[BranchJournal],
) -> tuple[list[WriteInTransaction], list[NewEvent]]:
    """Return the writes and events of all questions, in the order of the branches."""
    works = [work for journal in journals for work in journal.questions[0]]
    return works, [event for journal in journals for event in journal.questions[1]]
