"""Reading of one answer in OpenAI's dialects: what Chat Completions and Responses share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from service.errors import ModelError, ModelInterrupted
from service.llm.client import MAX_TEXT, ModelReply
from service.llm.model_json import parse, well_formed
from service.llm.reported_usage import MAX_FIGURE
from service.types import Usage

DONE = b"[DONE]"
MAX_WORD = 128  # characters of a model's name or a finish reason
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


class OpenAIAnswer(ABC):
    """Reader of a `ModelReply` from a stream (`feed`) or a complete answer (`take`).

    More than `most_text` characters, of any kind, raise `ModelError`.
    """

    def __init__(self, model: str, most_text: int = MAX_TEXT) -> None:
        self.ended = False  # the last event has arrived
        self._model = model
        self._room = most_text
        self._text: list[str] = []
        self._finish: str | None = None  # a stop reason of the Messages API, which runs have
        self._usage: Usage | None = None

    def feed(self, data: bytes) -> bool:
        """Process the data of one event. Returns True for one that holds nothing but usage."""
        if data.strip() == DONE:
            self.ended = True
            return False
        try:
            return self._take_event(parse(data))
        except UNREADABLE as error:
            raise ModelError("The model sent an event that cannot be read") from error

    def take(self, body: bytes) -> None:
        """Process a complete answer. Raises `ModelError` if it cannot be read."""
        try:
            self._take_answer(parse(body))
        except UNREADABLE as error:
            raise ModelError("The model sent an answer that cannot be read") from error

    def reply(self, request_id: str | None, ms: float) -> ModelReply:
        """Build the reply, whose worst is settled where no usage was reported. Raises `ModelInterrupted`."""
        if self._finish is None:
            raise ModelInterrupted()
        text = well_formed("".join(self._text))
        return ModelReply(
            self._model,
            [{"type": "text", "text": text}] if text else [],
            self._finish,
            self._usage or Usage(),
            usage_source="worst" if self._usage is None else "reported",
            request_id=request_id,
            ms=ms,
        )

    @abstractmethod
    def _take_event(self, event: dict[str, Any]) -> bool:
        """Take an event; return as `feed` does."""

    @abstractmethod
    def _take_answer(self, answer: dict[str, Any]) -> None:
        """Take a complete answer."""

    def _write(self, piece: str, *, shown: bool = False) -> None:
        self._room -= len(piece)
        if self._room < 0:
            raise ModelError("The model's answer is longer than it was asked for")
        if shown:
            self._text.append(piece)


def usage_of(reported: dict[str, Any] | None, prompt: str, output: str) -> Usage | None:
    """Read reported usage, whose figures are named `prompt` and `output`; None for one that cannot be."""
    if reported is None:
        return None
    details = reported.get(f"{prompt}_details") or {}
    read, written = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
    figures = (reported.get(prompt), reported.get(output), read, written)
    if not all(type(one) is int and 0 <= one <= MAX_FIGURE for one in figures):
        return None
    total = reported[prompt]
    if not total > 0 or read + written > total:
        return None
    return Usage(total - read - written, reported[output], read, written)


def word(value: Any) -> str:
    """Read a name. Raises `ValueError` for none, or a very long one."""
    if not isinstance(value, str) or not 0 < len(value) <= MAX_WORD:
        raise ValueError("no name, or a very long one")
    return well_formed(value)
