"""Context window of a run's model calls: a prompt that no longer fits is compacted, in a kept step of its own.

All of it follows from the prompts and the stored replies, so every attempt compacts at the same places.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import NamedTuple, Protocol

import orjson

from service.agents.pattern import Events, Prompt
from service.errors import PromptTooLong
from service.files import estimated_tokens
from service.llm.client import ModelReply, ModelRequest
from service.runs.compaction import (
    NOTES,
    max_notes,
    notes_request,
    shortened,
    split,
    turns_at,
    with_notes,
)
from service.types import Message, Usage, message_text

TOO_LONG = "prompt_too_long"  # stop reason of the stored step whose prompt the model refused
DEFAULT_TOKENS = 200_000  # every model of the price table has at least this window, some have five times it
TOKENS_PER_BYTE = 1 / 3  # until a reply reports its own: English has about 1/4, other scripts and digits more
LEAST_PER_BYTE = 1 / 6  # a lower figure is a mistake, or that of an estimate of files
UNREADABLE_NOTES = "{count} tool calls were made here, of which no notes could be taken."

Call = Callable[[ModelRequest], Events[ModelReply]]


class WriteNotes(Protocol):
    """Model step that is hidden from clients and does not count towards the step limit."""

    def __call__(self, name: str, prompt: Prompt, *, counts: bool) -> Events[ModelReply]: ...


class _Compacted(NamedTuple):
    """Conversation whose first messages are `covered`; `body` and `notes` stand for those after the question."""

    covered: Sequence[Message]
    body: Sequence[Message]
    notes: str


@dataclass(slots=True)
class _Estimate:
    """Estimate of tokens from bytes, besides those of files; exact for prompts like the last one."""

    per_byte: float = TOKENS_PER_BYTE

    def of(self, value: object) -> int:
        return round(_bytes(value) * self.per_byte) + _of_files(value)

    def learn(self, request: ModelRequest, reply: ModelReply) -> None:
        sent = _prompt_tokens(reply.usage)
        if reply.usage_source == "reported" and sent:
            text = sent - estimated_tokens(request.messages)
            self.per_byte = max(LEAST_PER_BYTE, text / _bytes(_sent(request)))


class ContextWindow:
    """Keeps the prompts of one attempt within `tokens`, whatever conversations they belong to."""

    def __init__(self, tokens: int | None, write_notes: WriteNotes) -> None:
        self._tokens = tokens or DEFAULT_TOKENS
        self._write_notes = write_notes
        self._estimate = _Estimate()
        self._compacted: list[_Compacted] = []
        self._number = 0

    def ask(self, request: ModelRequest, call: Call) -> Events[tuple[ModelRequest, ModelReply]]:
        """Make a call that fits; return the request as it was sent, and its reply.

        A prompt that the model refuses as too long is compacted once more. Raises `PromptTooLong` after that.
        """
        fitting = yield from self._fitted(request)
        try:
            reply = yield from call(fitting)
        except PromptTooLong:
            # The estimate or the window was wrong: from here on, prompts stay well below the one that was refused.
            refused = self._estimate.of(_sent(fitting)) + self._answer(request)
            self._tokens = min(self._tokens, refused) * 3 // 4
            shorter = yield from self._fitted(request)
            if shorter.messages == fitting.messages:
                raise
            fitting = shorter
            reply = yield from call(fitting)
        self._estimate.learn(fitting, reply)
        return fitting, reply

    def _fitted(self, request: ModelRequest) -> Events[ModelRequest]:
        """Return the request with the notes made so far, compacted again if it does not fit."""
        at = turns_at(request.messages)
        head, known = request.messages[:at], self._known(request.messages)
        body = [*known.body, *request.messages[len(known.covered) or at :]]
        if not body:
            return request
        messages = [*with_notes(head, known.notes), *body]
        room = self._tokens - self._answer(request) - self._estimate.of(_sent(replace(request, messages=())))
        if self._estimate.of(messages) > room:
            notes, recent = yield from self._compact(head, body, known.notes, room)
            done = _Compacted([*request.messages], recent, notes)
            self._compacted = [one for one in self._compacted if one is not known] + [done]
            messages = [*with_notes(head, done.notes), *done.body]
        return replace(request, messages=messages)

    def _known(self, messages: Sequence[Message]) -> _Compacted:
        """Find the compacted beginning of this conversation; an empty one if there is none."""
        for one in self._compacted:
            if list(messages[: len(one.covered)]) == one.covered:
                return one
        return _Compacted([], [], "")

    def _compact(
        self, head: Sequence[Message], body: Sequence[Message], notes: str, room: int
    ) -> Events[tuple[str, Sequence[Message]]]:
        """Take notes on older turns; return all notes, and the turns that stay.

        Half of the room is freed at once: one compaction serves for many turns.
        """
        fixed, most = self._estimate.of(head), max_notes(self._tokens)
        older, recent = split(body, room // 2 - fixed - most, self._estimate.of)
        if older:
            notes = yield from self._noted(message_text(head[-1]), older, notes, room)
        left = room - self._estimate.of(with_notes(head, notes))
        return notes, shortened(recent, left, self._estimate.of)

    def _noted(self, question: str, older: Sequence[Message], notes: str, room: int) -> Events[str]:
        """Add notes on `older`. Earlier notes stay word for word, or are rewritten once they have no room left.

        Notes of notes lose a little each time: a fact passes through the model once in several compactions.
        """
        most = max_notes(self._tokens)
        part = most // 4
        rewrite = bool(notes) and self._estimate.of(notes) + part > most
        space = max(0, room - self._estimate.of(notes) - most)
        prompt = Prompt(
            system=NOTES,
            messages=notes_request(
                question,
                older,
                notes,
                round(space / self._estimate.per_byte),
                (most if rewrite else part) // 2,
                rewrite=rewrite,
            ),
            tier="simple",
            max_tokens=most if rewrite else part,
            publish=False,
        )
        self._number += 1
        reply = yield from self._write_notes(f"compact {self._number}", prompt, counts=False)
        written = "" if reply.stop_reason == "refusal" else reply.text.strip()
        if written and rewrite:
            return written
        return f"{notes}\n{written or UNREADABLE_NOTES.format(count=len(older) // 2)}".strip()

    def share(self, usage: Usage) -> float:
        """Return the share of the window that a prompt filled."""
        return _prompt_tokens(usage) / self._tokens

    def _answer(self, request: ModelRequest) -> int:
        """Tokens set aside for the answer: not more than half of the window, or no prompt would be left."""
        return min(request.max_tokens, self._tokens // 2)


def _sent(request: ModelRequest) -> list[object]:
    return [request.system, request.messages, request.tools, request.json_schema]


def _prompt_tokens(usage: Usage) -> int:
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def _of_files(value: object) -> int:
    """Estimate the tokens of files in messages, or in what `_sent` returns."""
    if not isinstance(value, list | tuple):
        return 0
    parts = [part for part in value if isinstance(part, list | tuple)]
    messages = [one for one in (*value, *chain(*parts)) if isinstance(one, dict) and "role" in one]
    return estimated_tokens(messages)


def _bytes(value: object) -> int:
    try:
        return len(orjson.dumps(value))
    except TypeError:  # half a surrogate pair, which the client refuses with a better message
        return len(repr(value))
