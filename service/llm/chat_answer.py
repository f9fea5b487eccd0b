"""Reading of one answer of Chat Completions, from its chunks or whole: its usage, its text and its end."""

from __future__ import annotations

from typing import Any

from service.errors import ModelError
from service.llm.openai_answer import OpenAIAnswer, usage_of, word

STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
WRITTEN = ("content", "refusal", "reasoning_content", "reasoning")  # text fields of a message or delta


class ChatAnswer(OpenAIAnswer):
    """Reader of an answer of Chat Completions."""

    def _take_event(self, event: dict[str, Any]) -> bool:
        _check(event)
        self._take_usage(event)
        choices = event.get("choices") or ()
        for choice in choices:
            self._take_choice(choice, choice.get("delta") or {})
        return not choices and event.get("usage") is not None

    def _take_answer(self, answer: dict[str, Any]) -> None:
        _check(answer)
        self._model = word(answer.get("model") or self._model)
        self._take_usage(answer)
        for choice in answer["choices"]:
            self._take_choice(choice, choice["message"])

    def _take_choice(self, choice: dict[str, Any], message: dict[str, Any]) -> None:
        if choice.get("finish_reason") is not None:
            reason = word(choice["finish_reason"])
            self._finish = STOP_REASONS.get(reason, reason)
        for name in WRITTEN:
            self._write_text(message.get(name), shown=name == "content")
        for call in message.get("tool_calls") or ():
            called = call.get("function") or call.get("custom") or {}
            self._write_text(called.get("arguments") or called.get("input"))

    def _write_text(self, piece: Any, *, shown: bool = False) -> None:
        """Write a text that is always one. Raises `TypeError`."""
        if not isinstance(piece or "", str):
            raise TypeError("no text")
        self._write(piece or "", shown=shown)

    def _take_usage(self, holder: dict[str, Any]) -> None:
        """Read usage; of several in a stream, the last counts."""
        if holder.get("usage") is not None:
            self._usage = usage_of(holder["usage"], "prompt_tokens", "completion_tokens")


def _check(answer: dict[str, Any]) -> None:
    if answer.get("error") is not None:
        raise ModelError("The model answered with an error")
