"""Event log of an attempt: numbers events, and keeps them until a step stores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from service.runs.replay import IN_RESULT, Replay, branch_mark, told_by_branches
from service.store.database import Row
from service.text.sanitise import storable_json
from service.types import Event, Run, RunEvent

Shown = Callable[[Event, Mapping[str, Any]], Mapping[str, Any]]
NewEvent = tuple[Event, Mapping[str, Any]]  # not numbered yet


class EventLog:
    """Events of one attempt at a run, in the order of their numbers.

    `steps` are those that earlier attempts stored, `replay` the events they published after the last of them.
    """

    def __init__(self, run: Run, steps: Sequence[Row], replay: Replay | None) -> None:
        self._run = run
        self._replay = replay or Replay((), run.last_seq)
        stored_seq = steps[-1]["last_seq"] if steps else 0
        self.unstored = [event for event in self._replay.events if event.seq > stored_seq]
        events = [RunEvent(Event(name), data, seq) for row in steps for seq, name, data in row["events"]]
        # Source of the result of a run without an answer, earlier attempts included.
        self.for_result = [event for event in events if event.seq <= stored_seq and event.name in IN_RESULT]
        self.for_result += [event for event in self.unstored if event.name in IN_RESULT]
        self._told = told_by_branches([*events, *self._replay.events])
        self._waiting: list[NewEvent] = []
        self._numbered: list[RunEvent] = []  # from `_waiting`, and not committed yet
        self.shown: Shown = lambda name, data: data  # what clients may see of an event
        self.resumes_after = self._replay.resumes_after  # events up to this number remain valid
        # Not what the run's row says: events numbered before its last write may have reached nobody.
        run.last_seq = self._replay.last_seq

    def add(self, name: Event, data: Mapping[str, Any]) -> list[RunEvent]:
        """Number an event. Empty: clients got it before a crash."""
        numbered, data = [], self.shown(name, data)
        for event in self._unheard(name, data) if "branch" in data else self._replay.sift(name, data):
            self._run.last_seq += 1
            numbered.append(RunEvent(event.name, event.data, self._run.last_seq))
        self.unstored += numbered
        self.for_result += [event for event in numbered if event.name in IN_RESULT]
        return numbered

    def _unheard(self, name: Event, data: Mapping[str, Any]) -> list[RunEvent]:
        """Return an event of a sub-agent, unless an earlier attempt told it."""
        mark = branch_mark(name, data)
        if mark not in self._told:
            return [RunEvent(name, data)]
        self._told.discard(mark)
        return []

    def add_after_commit(self, name: Event, data: Mapping[str, Any]) -> None:
        """Add an event that is numbered for the next transaction."""
        self._waiting.append((name, data))

    def number_waiting(self) -> list[RunEvent]:
        """Number the events that wait for the transaction: once, however often it is tried."""
        waiting, self._waiting = self._waiting, []
        self._numbered += [event for name, data in waiting for event in self.add(name, data)]
        return list(self._numbered)

    def committed(self, *, step: bool) -> None:
        """Forget the events that a transaction has committed; `step`: it stored the others too, with their step."""
        self._numbered = []
        if step:
            self.unstored = []

    def make_storable(self) -> None:
        """Replace text that cannot be encoded by U+FFFD."""
        self.unstored = list(map(_storable, self.unstored))
        self._numbered = list(map(_storable, self._numbered))
        self._waiting = [(name, storable_json(data)) for name, data in self._waiting]


class BranchEvents(EventLog):
    """Events of a sub-agent, with its name and branch, numbered in the log of its run."""

    def __init__(self, whole: EventLog, agent: str, branch: str) -> None:
        self._whole = whole
        self._label = {"agent": agent, "branch": branch}
        self._waiting: list[NewEvent] = []
        self._numbered: list[RunEvent] = []

    def add(self, name: Event, data: Mapping[str, Any]) -> list[RunEvent]:
        return self._whole.add(name, {**data, **self._label})

    def committed(self, *, step: bool) -> None:
        self._numbered = []
        self._whole.committed(step=step)

    def take_waiting(self) -> list[NewEvent]:
        """Give up the events that wait for a transaction, for another one to publish."""
        waiting, self._waiting = self._waiting, []
        return [(name, {**data, **self._label}) for name, data in waiting]


def _storable(event: RunEvent) -> RunEvent:
    return event._replace(data=storable_json(event.data))
