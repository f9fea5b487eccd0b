"""Replay of a step that was cut short: events that clients have got are not published again.

The worker that takes a run up makes the cut step again. Text that comes out the same is not published twice: the
client's text just goes on. Text that comes out different is announced by `run.resumed` with a `from_seq`:
text with a higher number, published before that event, is void.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.types import Event, RunEvent

JUMP = 100_000  # numbers skipped where it is unknown which events clients got: more than an attempt publishes
# Events that a result without an answer is made from: the text that stands, and the tools that were used.
IN_RESULT = (Event.TEXT_DELTA, Event.RUN_RESUMED, Event.TOOL_CALLED, Event.TOOL_FINISHED)
BEFORE_TEXT = (Event.RUN_STARTED, Event.RUN_RESUMED, Event.APPROVAL_DECIDED, Event.STEP_STARTED)


class Replay:
    """Events published after the last kept step; `kept_seq` is the last number that is kept.

    `lost`: there may have been more, it is unknown how many. Numbers jump beyond all that `attempts` before this one
    may have published, and all events after the last kept step are void.
    """

    def __init__(
        self, events: Sequence[RunEvent], kept_seq: int, *, lost: bool = False, attempts: int = 1
    ) -> None:
        self.events = tuple(events)
        known = max((event.seq for event in events), default=kept_seq)
        self.last_seq = known + JUMP * attempts * lost
        self.resumes_after = kept_seq if lost else self.last_seq
        self._kept_seq = kept_seq
        self._marks = {_mark(event.name, event.data) for event in events}
        self._text = "" if lost else standing_text(events)
        self._at = 0  # how much of the text has come again

    def sift(self, name: Event, data: Mapping[str, Any]) -> list[RunEvent]:
        """Return what is still to be published for this event: nothing, itself, or a correction and itself."""
        if name is Event.TEXT_DELTA:
            return self._sift_text(data["text"])
        if name is not Event.RUN_RESUMED and _mark(name, data) in self._marks:
            self._marks.discard(_mark(name, data))
            return []
        if name in BEFORE_TEXT:
            return [RunEvent(name, data)]
        # The step ended before its published text did: the text of this time is all that stands.
        return [*self._correction(""), RunEvent(name, data)]

    def _sift_text(self, piece: str) -> list[RunEvent]:
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
        resumed = RunEvent(Event.RUN_RESUMED, {"from_seq": self._kept_seq})
        return [resumed, _delta(whole)] if whole else [resumed]


def _delta(text: str) -> RunEvent:
    return RunEvent(Event.TEXT_DELTA, {"text": text})


def _mark(name: Event, data: Mapping[str, Any]) -> tuple[str, object]:
    """Return what identifies an event that is made again: times and previews may differ."""
    return name, data.get("call_id") or data.get("approval_id") or data.get("step")


def standing_text(events: Sequence[RunEvent]) -> str:
    """Join the text that was published, without what a `run.resumed` took back."""
    standing: list[RunEvent] = []
    for event in events:
        if event.name is Event.TEXT_DELTA:
            standing.append(event)
        elif event.name is Event.RUN_RESUMED:
            standing = [delta for delta in standing if delta.seq <= event.data["from_seq"]]
    return "".join(delta.data["text"] for delta in standing)
