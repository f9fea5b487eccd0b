"""Reading of one answer of the Responses API, from its events or whole: its usage, its text and its end."""

from __future__ import annotations

from typing import Any

from service.errors import ModelError, ModelInterrupted
from service.llm.chat_answer import DONE, UNREADABLE, word
from service.llm.client import MAX_TEXT, CallProgress, ModelReply
from service.llm.model_json import parse, well_formed
from service.llm.reported_usage import MAX_FIGURE
from service.types import Usage

ENDS = ("response.completed", "response.incomplete", "response.failed")
STOP_REASONS = {"max_output_tokens": "max_tokens", "content_filter": "refusal"}  # of the Messages API
CALLS = ("function_call", "custom_tool_call")


class ResponsesAnswer:
    """Reader of a `ModelReply` from events (`feed`) or a complete answer (`take`).

    More than `most_text` characters, of any kind, raise `ModelError`, as does an answer that failed; its usage is in
    `progress` then.
    """

    def __init__(self, model: str, progress: CallProgress, most_text: int = MAX_TEXT) -> None:
        self.ended = False  # the last event has arrived
        self._model, self._progress = model, progress
        self._room = most_text
        self._text: list[str] = []
        self._finish: str | None = None
        self._usage: Usage | None = None

    def feed(self, data: bytes) -> bool:
        """Process the data of one event. Returns False: each is for the client."""
        if data.strip() == DONE:
            self.ended = True
            return False
        try:
            event = parse(data)
            kind = event["type"]
            if kind == "error":
                raise ModelError("The model answered with an error")
            if kind in ENDS:
                self.ended = True
                self._end(event["response"])
            elif kind.endswith(".delta"):
                self._write(event.get("delta"), shown=kind == "response.output_text.delta")
        except UNREADABLE as error:
            raise ModelError("The model sent an event that cannot be read") from error
        return False

    def take(self, body: bytes) -> None:
        """Process a complete answer. Raises `ModelError` if it cannot be read."""
        try:
            answer = parse(body)
            for item in answer["output"]:
                self._read(item)
            self._end(answer)
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

    def _end(self, answer: dict[str, Any]) -> None:
        """Read how an answer ended. Raises `ModelError` for one that failed, with its usage in the progress."""
        self._model = word(answer.get("model") or self._model)
        self._usage = _usage(answer.get("usage"))
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
            self._write(part.get("text") or part.get("refusal"), shown=part.get("type") == "output_text")
        self._write(item.get("arguments") or item.get("input"))

    def _write(self, piece: Any, *, shown: bool = False) -> None:
        if not isinstance(piece, str):
            return
        self._room -= len(piece)
        if self._room < 0:
            raise ModelError("The model's answer is longer than it was asked for")
        if shown:
            self._text.append(piece)


def _usage(usage: Any) -> Usage | None:
    """Read reported usage; None for one that cannot be."""
    if usage is None:
        return None
    details = usage.get("input_tokens_details") or {}
    prompt, output = usage.get("input_tokens"), usage.get("output_tokens")
    read, written = details.get("cached_tokens") or 0, details.get("cache_write_tokens") or 0
    if not all(type(one) is int and 0 <= one <= MAX_FIGURE for one in (prompt, output, read, written)):
        return None
    if not prompt > 0 or read + written > prompt:
        return None
    return Usage(prompt - read - written, output, read, written)
