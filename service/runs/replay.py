"""Replay of an interrupted step: events that clients have got are not published again.

The worker that resumes a run makes the interrupted step again. Text that comes out the same is not published twice: the
client's text just continues. Different text is announced by `run.resumed` with a `from_seq`: text with a higher number,
published before that event, is void.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from service.types import Event, RunEvent

JUMP = 100_000  # numbers skipped when clients' events are unknown: more than an attempt publishes
# Source of the result of a run without an answer: its valid text, the tools used, and the budget that it waits for.
IN_RESULT = (
    Event.TEXT_DELTA,
    Event.RUN_RESUMED,
    Event.TOOL_CALLED,
    Event.TOOL_FINISHED,
    Event.BUDGET_REQUIRED,
)
BEFORE_TEXT = (
    Event.RUN_STARTED,
    Event.RUN_RESUMED,
    Event.APPROVAL_DECIDED,
    Event.STEP_STARTED,
    Event.BUDGET_REQUIRED,
)


class Replay:
    """Events published after the last finished step, whose last number is `stored_seq`.

    `lost`: an unknown number of further events may exist. Numbers then jump beyond all that `attempts` earlier attempts
    may have published, and all events after the last finished step are void.
    """

    def __init__(
        self, events: Sequence[RunEvent], stored_seq: int, *, lost: bool = False, attempts: int = 1
    ) -> None:
        self.events = tuple(events)
        known = max((event.seq for event in events), default=stored_seq)
        self.last_seq = known + JUMP * attempts * lost
        self.resumes_after = stored_seq if lost else self.last_seq
        self._stored_seq = stored_seq
        self._marks = {_mark(event.name, event.data) for event in events if "branch" not in event.data}
        self._text = "" if lost else valid_text(events)
        self._at = 0  # characters of the text that have been repeated

    def sift(self, name: Event, data: Mapping[str, Any]) -> list[RunEvent]:
        """Return the events still to be published for this one: none, itself, or a correction and itself."""
        if name is Event.TEXT_DELTA:
            return self._sift_text(data["text"])
        if name is not Event.RUN_RESUMED and _mark(name, data) in self._marks:
            self._marks.discard(_mark(name, data))
            return []
        if name in BEFORE_TEXT or (name is Event.GUARDRAIL and data["where"] != "output"):
            return [RunEvent(name, data)]
        # The step ended before reproducing all its published text: only the new text is valid.
        return [*self._correction(""), RunEvent(name, data)]

    def _sift_text(self, piece: str) -> list[RunEvent]:
        if self._at >= len(self._text):
            return [_delta(piece)] if piece else []
        expected = self._text[self._at :]
        if expected.startswith(piece):
            self._at += len(piece)
            return []
        if piece.startswith(expected):
            self._at = len(self._text)
            return [_delta(piece[len(expected) :])]
        return self._correction(piece)

    def _correction(self, piece: str) -> list[RunEvent]:
        if self._at >= len(self._text):
            return [_delta(piece)] if piece else []
        whole, self._text = self._text[: self._at] + piece, ""
        resumed = RunEvent(Event.RUN_RESUMED, {"from_seq": self._stored_seq})
        return [resumed, _delta(whole)] if whole else [resumed]


def _delta(text: str) -> RunEvent:
    return RunEvent(Event.TEXT_DELTA, {"text": text})


def told_by_branches(events: Iterable[RunEvent]) -> set[tuple[object, ...]]:
    """Return the identities of events that sub-agents told, whether their steps are stored or not."""
    return {branch_mark(event.name, event.data) for event in events if "branch" in event.data}


def branch_mark(name: Event, data: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the identity of a repeated event of a sub-agent: its steps are stored beside those of others."""
    return data["branch"], *_mark(name, data)


def _mark(name: Event, data: Mapping[str, Any]) -> tuple[str, object]:
    """Return the identity of a repeated event: times and previews may differ."""
    if name is Event.GUARDRAIL:
        return name, tuple(data.get(field) for field in ("step", "where", "kind", "action"))
    return name, data.get("call_id") or data.get("approval_id") or data.get("step")


def valid_text(events: Sequence[RunEvent]) -> str:
    """Join the published text, without text voided by `run.resumed`."""
    standing: list[RunEvent] = []
    for event in events:
        if event.name is Event.TEXT_DELTA:
            standing.append(event)
        elif event.name is Event.RUN_RESUMED:
            standing = [delta for delta in standing if delta.seq <= event.data["from_seq"]]
    return "".join(delta.data["text"] for delta in standing)
