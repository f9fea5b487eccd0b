"""Reading of one answer of Chat Completions, from its chunks or whole: its usage, its text and its end."""

from __future__ import annotations

from typing import Any

from service.errors import ModelError, ModelInterrupted
from service.llm.client import MAX_TEXT, ModelReply
from service.llm.model_json import parse, well_formed
from service.llm.reported_usage import MAX_FIGURE
from service.types import Usage

DONE = b"[DONE]"
# Stop reasons of the Messages API, which runs have, by `finish_reason`.
STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
WRITTEN = ("content", "refusal", "reasoning_content", "reasoning")  # text fields of a message or delta
MAX_WORD = 128  # characters of a model's name or a finish reason
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)


class ChatAnswer:
    """Reader of a `ModelReply` from chunks (`feed`) or a complete answer (`take`).

    More than `most_text` characters, of any kind, raise `ModelError`.
    """

    def __init__(self, model: str, most_text: int = MAX_TEXT) -> None:
        self.ended = False  # `[DONE]` has arrived
        self._model = model
        self._room = most_text
        self._text: list[str] = []
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._valid = True  # False once usage was reported that cannot be

    def feed(self, data: bytes) -> bool:
        """Process the data of one event. Returns True for a chunk that holds nothing but usage."""
        if data.strip() == DONE:
            self.ended = True
            return False
        try:
            chunk = parse(data)
            if chunk.get("error") is not None:
                raise ModelError("The model answered with an error")
            self._take_usage(chunk.get("usage"))
            choices = chunk.get("choices") or ()
            for choice in choices:
                self._take_choice(choice, choice.get("delta") or {})
            return not choices and chunk.get("usage") is not None
        except UNREADABLE as error:
            raise ModelError("The model sent an event that cannot be read") from error

    def take(self, body: bytes) -> None:
        """Process a complete answer. Raises `ModelError` if it cannot be read."""
        try:
            answer = parse(body)
            if answer.get("error") is not None:
                raise ModelError("The model answered with an error")
            self._model = word(answer.get("model") or self._model)
            self._take_usage(answer.get("usage"))
            for choice in answer["choices"]:
                self._take_choice(choice, choice["message"])
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
            STOP_REASONS.get(self._finish, self._finish),
            self._usage or Usage(),
            usage_source="worst" if self._usage is None or not self._valid else "reported",
            request_id=request_id,
            ms=ms,
        )

    def _take_choice(self, choice: dict[str, Any], message: dict[str, Any]) -> None:
        if choice.get("finish_reason") is not None:
            self._finish = word(choice["finish_reason"])
        for name in WRITTEN:
            self._write(message.get(name) or "", shown=name == "content")
        for call in message.get("tool_calls") or ():
            called = call.get("function") or call.get("custom") or {}
            self._write(called.get("arguments") or called.get("input") or "")

    def _write(self, piece: Any, *, shown: bool = False) -> None:
        if not isinstance(piece, str):
            raise TypeError("no text")
        self._room -= len(piece)
        if self._room < 0:
            raise ModelError("The model's answer is longer than it was asked for")
        if shown and piece:
            self._text.append(piece)

    def _take_usage(self, usage: Any) -> None:
        """Read usage; of several in a stream, the last counts."""
        if usage is None:
            return
        details = usage.get("prompt_tokens_details") or {}
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        read, written = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
        figures = (prompt, output, read, written)
        self._valid = all(type(one) is int and 0 <= one <= MAX_FIGURE for one in figures)
        self._valid = self._valid and prompt > 0 and read + written <= prompt
        if self._valid:
            self._usage = Usage(prompt - read - written, output, read, written)


def word(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_WORD:
        raise ValueError("no name, or a very long one")
    return well_formed(value)
