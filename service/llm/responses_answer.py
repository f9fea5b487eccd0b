"""Reading of one answer of the Responses API, from its events or whole: its usage, its text and its end."""

from __future__ import annotations

from typing import Any

from service.errors import ModelError
from service.llm.client import MAX_TEXT, CallProgress
from service.llm.openai_answer import OpenAIAnswer, usage_of, word

ENDS = ("response.completed", "response.incomplete", "response.failed")
STOP_REASONS = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}  # of the Messages API
CALLS = ("function_call", "custom_tool_call")


class ResponsesAnswer(OpenAIAnswer):
    """Reader of an answer of the Responses API. The usage of one that failed is in `progress`."""

    def __init__(self, model: str, progress: CallProgress, most_text: int = MAX_TEXT) -> None:
        super().__init__(model, most_text)
        self._progress = progress

    def _take_event(self, event: dict[str, Any]) -> bool:
        kind = event["type"]
        if kind == "error":
            raise ModelError("The model answered with an error")
        if kind in ENDS:
            self.ended = True
            self._end(event["response"])
        elif kind.endswith(".delta"):
            self._write_any(event.get("delta"), shown=kind == "response.output_text.delta")
        return False

    def _take_answer(self, answer: dict[str, Any]) -> None:
        for item in answer["output"]:
            self._read(item)
        self._end(answer)

    def _end(self, answer: dict[str, Any]) -> None:
        """Read how an answer ended. Raises `ModelError` for one that failed, with its usage in the progress."""
        self._model = word(answer.get("model") or self._model)
        self._usage = usage_of(answer.get("usage"), "input_tokens", "output_tokens")
        status = word(answer["status"])
        if status == "completed":
            calls = any(item.get("type") in CALLS for item in answer["output"])
            self._finish = "tool_use" if calls else "end_turn"
        elif status == "incomplete":
            reason = word((answer.get("incomplete_details") or {})["reason"])
            self._finish = STOP_REASONS.get(reason, reason)
        else:
            self._progress.usage, self._progress.text = self._usage, ""
            raise ModelError("The model answered with an error")

    def _read(self, item: dict[str, Any]) -> None:
        for part in [*(item.get("content") or ()), *(item.get("summary") or ())]:
            self._write_any(part.get("text") or part.get("refusal"), shown=part.get("type") == "output_text")
        self._write_any(item.get("arguments") or item.get("input"))

    def _write_any(self, piece: Any, *, shown: bool = False) -> None:
        """Write a text; other kinds of pieces have none."""
        if isinstance(piece, str):
            self._write(piece, shown=shown)
