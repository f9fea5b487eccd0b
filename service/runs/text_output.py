"""Text output of a run: every `text.delta` passes here on its way to clients, without links that may not be sent.

Cached answers, served without a run (`service.runs.cached`), do not: their text passed here when it was made.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from service.errors import GuardrailRefused
from service.guardrails.filter import Refused, TextFilter
from service.guardrails.hosts import Hosts
from service.guardrails.links import LinkFilter
from service.guardrails.prompt_marker import MarkerFilter
from service.llm.client import ModelReply
from service.runs.journal import Journal
from service.runs.run_rails import RunRails
from service.text.sanitise import storable
from service.types import Event, RunEvent, now_ms


class Filter(Protocol):
    """Filter of a text that arrives in pieces, which says the same in any chunking. Raises `Refused`."""

    def feed(self, text: str) -> str:
        """Take the next piece; return what may go on."""
        ...

    def close(self) -> str:
        """End the text; return the rest that may go on."""
        ...


class TextOutput:
    """Writes the text of one attempt.

    Called by one thread at a time: the run's own, or the stream reader's, which reads the model's answer while the
    run's thread sleeps.
    """

    def __init__(self, journal: Journal, rails: RunRails) -> None:
        self._journal = journal
        self.rails = rails
        self._hosts: Hosts | None = None
        self._told = False  # the reply's text is for clients, and not only for later steps
        self._marker = ""  # of system prompts, which may not be told
        self._written: list[str] = []  # of the reply, as it came …
        self._sent: list[str] = []  # … and as it went on
        self.refused: GuardrailRefused | None = None  # of the reply that is being written, which is to end
        self.held = False  # nothing is written: the answer is told once it is whole and valid
        self.gave_away = False  # the last reply began to repeat a system prompt, and was cut there
        self._made_of_it = self._made()
        self.first_at: int | None = None  # ms: when clients were sent the first text of this attempt
        self.deltas = 0  # written in this attempt, including those clients have from an earlier one

    def begin(self, hosts: Hosts | None, marker: str = "", *, told: bool = True) -> None:
        """Begin a reply that may link to `hosts`; None: to any. Text held back of an interrupted one is lost.

        `marker`: of system prompts, which may not be told.
        """
        self._hosts, self._marker, self._told, self.refused = hosts, marker, told, None
        self._written, self._sent, self._made_of_it = [], [], self._made()

    def write(self, text: str) -> list[RunEvent]:
        """Publish a delta now, without what may become a link or a match of a guardrail.

        Return the resulting events, none while text is held, and none more once the reply is refused.
        """
        if self.held or self.refused is not None:
            return []
        self.deltas += 1
        text = storable(text)
        self._written.append(text)
        return self._publish(self._passed(text))

    def write_or_end(self, text: str, end_call: Callable[[], object]) -> list[RunEvent]:
        """Publish a delta as `write` does; end the model call once its reply is refused."""
        events = self.write(text)
        if self.refused is not None:
            end_call()
        return events

    def tell(self, text: str) -> list[RunEvent]:
        """Publish an answer that was held and has nothing left to take out."""
        self.deltas += 1
        return self._publish(storable(text))

    def end(self) -> list[RunEvent]:
        """Publish what was held back of a reply that is complete."""
        return [] if self.held or self.refused is not None else self._publish(self._passed(None))

    def cleaned(self, reply: ModelReply, step: int) -> ModelReply:
        """Return the reply of a step as its stream tells it; tell clients what was taken out.

        Raises `GuardrailRefused`.
        """
        self.gave_away = False
        if self.refused is not None:
            raise self.refused
        texts = [number for number, block in enumerate(reply.content) if block["type"] == "text"]
        if not texts:
            return reply
        content = list(reply.content)
        if len(texts) == 1 and self._written and "".join(self._written) == content[texts[0]]["text"]:
            prompt, links, rail, _ = self._made_of_it  # which have read it all
            content[texts[0]] = {**content[texts[0]], "text": "".join(self._sent)}
        else:
            prompt, links, rail, filters = self._made()
            try:
                for number in texts:
                    content[number] = {**content[number], "text": _fed(filters, content[number]["text"])}
                content[texts[-1]]["text"] += _closed(filters)
            except Refused as refused:
                raise self.rails.refusal("output", refused) from None
        self.gave_away = prompt.found
        if links.removed:
            acted = {"where": "output", "kind": "links", "action": "removed", "count": links.removed}
            self._journal.publish_after_commit(Event.GUARDRAIL, {"step": step, **acted})
        cleaned = reply if content == reply.content else replace(reply, content=content)
        if rail is not None:
            self.rails.filtered(rail, cleaned.text)
        return cleaned

    def write_after_commit(self, text: str) -> None:
        """Publish a complete text with the next transaction, which stores its step."""
        if not self.held:
            self._journal.publish_after_commit(Event.TEXT_DELTA, _delta(text))

    def _made(self) -> tuple[MarkerFilter, LinkFilter, TextFilter | None, Sequence[Filter]]:
        """Make the filters of a reply, in the order in which its text passes them.

        A text that is held to be valid JSON is filtered by its values, see `service.runs.structured`.
        """
        prompt, links = MarkerFilter(self._marker), LinkFilter(self._hosts)
        rail = self.rails.text_filter() if self._told and not self.held else None
        return prompt, links, rail, (prompt, links) if rail is None else (prompt, links, rail)

    def _passed(self, text: str | None) -> str:
        """Pass a piece through the filters; None: the end. A refusal tells no more of this reply."""
        filters = self._made_of_it[3]
        try:
            passed = _closed(filters) if text is None else _fed(filters, text)
        except Refused as refused:
            self.refused = self.rails.refusal("output", refused)
            passed = refused.before
        self._sent.append(passed)
        return passed

    def _publish(self, text: str) -> list[RunEvent]:
        if not text:
            return []
        self.first_at = self.first_at or now_ms()
        return self._journal.publish(Event.TEXT_DELTA, _delta(text))


def _fed(filters: Sequence[Filter], text: str) -> str:
    for each in filters:
        text = each.feed(text)
    return text


def _closed(filters: Sequence[Filter]) -> str:
    """Close filters, each after the rest of those before it."""
    rest = ""
    for each in filters:
        rest = each.feed(rest) + each.close()
    return rest


def _delta(text: str) -> dict[str, str]:
    return {"text": storable(text)}
