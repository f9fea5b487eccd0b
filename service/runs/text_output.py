"""Text output of a run: the one point that every `text.delta` passes on its way to clients. Output guardrails go here.

Not cached answers, which are given without a run (`service.runs.cached`): their text passed here when it was made.
"""

from __future__ import annotations

from service.runs.journal import Journal
from service.text.sanitise import storable
from service.types import Event, RunEvent


class TextOutput:
    """Writes the text of one attempt. Called by one thread at a time: the run's own, or the stream reader's, which
    reads the model's answer while the run's thread sleeps."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.deltas = 0  # written in this attempt, those included that clients have from an earlier one

    def write(self, text: str) -> list[RunEvent]:
        """Publish a delta now; return the events that came of it."""
        self.deltas += 1
        return self._journal.tell(Event.TEXT_DELTA, _delta(text))

    def write_after_commit(self, text: str) -> None:
        """Publish a text that came whole with the next transaction, which keeps its step."""
        self._journal.later(Event.TEXT_DELTA, _delta(text))


def _delta(text: str) -> dict[str, str]:
    return {"text": storable(text)}
