"""Text output of a run: every `text.delta` passes here on its way to clients. Output guardrails go here.

Cached answers, served without a run (`service.runs.cached`), do not: their text passed here when it was made.
"""

from __future__ import annotations

from service.runs.journal import Journal
from service.text.sanitise import storable
from service.types import Event, RunEvent


class TextOutput:
    """Writes the text of one attempt.

    Called by one thread at a time: the run's own, or the stream reader's, which reads the model's answer while the
    run's thread sleeps.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.held = False  # nothing is written: the answer is told once it is whole and valid
        self.deltas = 0  # written in this attempt, including those clients have from an earlier one

    def write(self, text: str) -> list[RunEvent]:
        """Publish a delta now; return the resulting events, none while text is held."""
        return [] if self.held else self.tell(text)

    def tell(self, text: str) -> list[RunEvent]:
        """Publish a delta now, also while text is held."""
        self.deltas += 1
        return self._journal.publish(Event.TEXT_DELTA, _delta(text))

    def write_after_commit(self, text: str) -> None:
        """Publish a complete text with the next transaction, which stores its step."""
        if not self.held:
            self._journal.publish_after_commit(Event.TEXT_DELTA, _delta(text))


def _delta(text: str) -> dict[str, str]:
    return {"text": storable(text)}
