"""Text output of a run: every `text.delta` passes here on its way to clients, without links that may not be sent.

Cached answers, served without a run (`service.runs.cached`), do not: their text passed here when it was made.
"""

from __future__ import annotations

from dataclasses import replace

from service.guardrails.hosts import Hosts
from service.guardrails.links import LinkFilter
from service.guardrails.prompt_marker import MarkerFilter
from service.llm.client import ModelReply
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
        self._hosts: Hosts | None = None
        self._links = LinkFilter(None)
        self._marker, self._prompt = "", MarkerFilter("")
        self.held = False  # nothing is written: the answer is told once it is whole and valid
        self.gave_away = False  # the last reply began to repeat a system prompt, and was cut there
        self.deltas = 0  # written in this attempt, including those clients have from an earlier one

    def begin(self, hosts: Hosts | None, marker: str = "") -> None:
        """Begin a reply that may link to `hosts`; None: to any. Text held back of an interrupted one is lost.

        `marker`: of system prompts, which may not be told.
        """
        self._hosts, self._links = hosts, LinkFilter(hosts)
        self._marker, self._prompt = marker, MarkerFilter(marker)

    def write(self, text: str) -> list[RunEvent]:
        """Publish a delta now, without what may become a link; return the resulting events, none while text is held."""
        if self.held:
            return []
        self.deltas += 1
        return self._publish(self._links.feed(self._prompt.feed(storable(text))))

    def tell(self, text: str) -> list[RunEvent]:
        """Publish an answer that was held and has no links left to take out."""
        self.deltas += 1
        return self._publish(storable(text))

    def end(self) -> list[RunEvent]:
        """Publish what was held back of a reply that is complete."""
        return self._publish(self._links.feed(self._prompt.close()) + self._links.close())

    def cleaned(self, reply: ModelReply, step: int) -> ModelReply:
        """Return the reply of a step as its stream tells it; tell clients what was taken out."""
        links, prompt, content = LinkFilter(self._hosts), MarkerFilter(self._marker), []
        for block in reply.content:
            if block["type"] == "text":
                block = {**block, "text": links.feed(prompt.feed(block["text"]))}
            content.append(block)
        rest = links.feed(prompt.close()) + links.close()
        self.gave_away = prompt.found
        if not links.removed and not prompt.found:
            return reply
        last = max(number for number, block in enumerate(content) if block["type"] == "text")
        content[last]["text"] += rest
        if links.removed:
            acted = {"where": "output", "kind": "links", "action": "removed", "count": links.removed}
            self._journal.publish_after_commit(Event.GUARDRAIL, {"step": step, **acted})
        return replace(reply, content=content)

    def write_after_commit(self, text: str) -> None:
        """Publish a complete text with the next transaction, which stores its step."""
        if not self.held:
            self._journal.publish_after_commit(Event.TEXT_DELTA, _delta(text))

    def _publish(self, text: str) -> list[RunEvent]:
        return self._journal.publish(Event.TEXT_DELTA, _delta(text)) if text else []


def _delta(text: str) -> dict[str, str]:
    return {"text": storable(text)}
