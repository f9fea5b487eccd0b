"""Assembly of one answer of the Messages API from stream events or a complete message. Plain JSON, no SDK objects.

Any server output becomes either an answer that can be stored and sent back, or a `ModelError`.
"""

from __future__ import annotations

from typing import Any

from service.errors import ModelError, ModelInterrupted
from service.llm.client import MAX_TEXT, ModelReply
from service.llm.model_json import (
    arguments,
    can_be_written,
    ends_in_half,
    is_suspect,
    parse,
    repaired,
    well_formed,
)
from service.llm.reported_usage import ReportedUsage
from service.llm.tool_names import named_by_model
from service.llm.upstream import refused
from service.types import Block, Usage, UsageSource

MAX_BLOCKS = 1_000
MAX_WORD = 128  # characters of a block type, model name or stop reason
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError)
PIECES = {  # delta type → field that holds its text, type of block it belongs to
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("partial_json", None),
    "signature_delta": ("signature", "thinking"),
}


class MessageBuilder:
    """Builder of a `ModelReply` from events (`feed`) or a complete message (`take`).

    `model` is the requested name, used when the answer names none. More than `most_text` characters, of any kind, raise
    `ModelError`.
    """

    def __init__(self, model: str = "", most_text: int = MAX_TEXT) -> None:
        self.stop_reason: str | None = None
        self._stop_sequence: str | None = None
        self.ended = False  # `message_stop` has arrived: later events are ignored
        self._model = model
        self._blocks: dict[int, Block] = {}
        self._pieces: dict[int, list[str]] = {}
        self._written: list[str] = []
        self._room = most_text  # characters left of `most_text`
        self._half: tuple[int, str] | None = None  # block index and its pending high surrogate
        self._usage = ReportedUsage()
        self._output_reported = False  # by an event that counts all of the output

    @property
    def usage(self) -> Usage | None:
        """Usage reported so far; None when that is not enough for an estimate."""
        return self._usage.total if self._usage.known else None

    @property
    def written(self) -> str:
        """Return all that the model has written so far, of any kind: the basis for estimating output tokens."""
        return "".join(self._written)

    def feed(self, data: bytes) -> str:
        """Process one event; return its text, possibly empty. Raises what the upstream reports, or `ModelError`."""
        if self.ended:
            return ""
        try:
            return self._event(parse(data), data)
        except UNREADABLE as error:
            raise ModelError("The model sent an event that cannot be read") from error

    def take(self, body: bytes) -> None:
        """Parse an unstreamed answer and add its content. Raises `ModelError` if it cannot be parsed."""
        try:
            message = parse(body)
        except ValueError as error:
            raise ModelError("The model sent an answer that cannot be read") from error
        self.take_message(message, suspect=is_suspect(body))

    def take_message(self, message: Any, *, suspect: bool = True) -> None:
        """Process a parsed message; `suspect`: its strings may need repair."""
        try:
            if message["type"] == "error":
                raise refused(200, message["error"].get("type"))
            self._begin(message)
            self._output_reported = self._usage.reports(message.get("usage"), "output_tokens")
            if message["stop_reason"] is not None:
                self.stop_reason = _word(message["stop_reason"])
                self._stop_at(message)
            for index, block in enumerate(message["content"]):
                self._add_block(index, block, suspect)
        except UNREADABLE as error:
            raise ModelError("The model sent an answer that cannot be read") from error

    def reply(self, request_id: str | None, ms: float) -> ModelReply:
        """Build the reply. Raises `ModelInterrupted` when the answer has no stop reason."""
        if self.stop_reason is None:
            raise ModelInterrupted()
        content, unreadable = list[Block](), set[str]()
        for index in sorted(self._blocks):
            block, readable = self._finished(index)
            if readable:
                content.append(block)
            elif self.stop_reason == "tool_use":
                content.append(block)
                unreadable.add(block["id"])
            # else a call cut off before its arguments were complete: dropped
        return ModelReply(
            self._model,
            content,
            self.stop_reason,
            self._usage.total,
            usage_source=self._source(),
            unreadable=frozenset(unreadable),
            stop_sequence=self._stop_sequence,
            request_id=request_id,
            ms=ms,
        )

    def _stop_at(self, told: dict[str, Any]) -> None:
        sequence = told.get("stop_sequence")
        self._stop_sequence = sequence if isinstance(sequence, str) else None

    def _source(self) -> UsageSource:
        complete = self._usage.known and self._usage.valid and self._output_reported
        silent = self._usage.total.output_tokens == 0 and any(self._written)
        return "reported" if complete and not silent else "estimated"

    def _event(self, event: dict[str, Any], data: bytes) -> str:
        kind = event["type"]
        if kind == "content_block_delta":
            return self._delta(event["index"], event["delta"])
        text, self._half = ("" if self._half is None else "\ufffd"), None
        if kind == "content_block_start":
            text += self._add_block(event["index"], event["content_block"], is_suspect(data))
        elif kind == "message_start":
            self._begin(event["message"])
        elif kind == "message_delta":
            if (reason := event["delta"].get("stop_reason")) is not None:
                self.stop_reason = _word(reason)
                self._stop_at(event["delta"])
            self._usage.add(event.get("usage"))
            self._output_reported |= self._usage.reports(event.get("usage"), "output_tokens")
        elif kind == "message_stop":
            self.ended = True
        elif kind == "error":
            raise refused(200, event["error"].get("type"))
        return text  # also for ping, content_block_stop and unknown event types

    def _delta(self, index: Any, delta: dict[str, Any]) -> str:
        block, kind = self._blocks[_index(index)], delta["type"]
        if kind == "citations_delta" and block["type"] == "text":
            block["citations"] += _citations([delta["citation"]])
        if kind not in PIECES:
            return ""
        name, expected = PIECES[kind]
        piece = _text(delta[name])
        self._write(piece)
        if expected is not None and block["type"] != expected:
            return ""  # block type of a later API version
        if kind == "signature_delta":
            block["signature"] = well_formed(piece)
            return ""
        self._pieces[index].append(piece)
        return self._printable(index, piece) if kind == "text_delta" else ""

    def _write(self, piece: str) -> None:
        self._written.append(piece)
        self._room -= len(piece)
        if self._room < 0:
            raise ModelError("The model's answer is longer than it was asked for")

    def _printable(self, index: int, piece: str) -> str:
        """Return the printable part of a piece; hold a trailing high surrogate back until its low half arrives."""
        if self._half is None and piece.isascii():
            return well_formed(piece)
        before, self._half = self._half, None
        if before is not None:
            piece = before[1] + piece if before[0] == index else f"\ufffd{piece}"
        if ends_in_half(piece):
            self._half = (index, piece[-1])
            piece = piece[:-1]
        return well_formed(piece)

    def _begin(self, message: dict[str, Any]) -> None:
        if message.get("model") is not None:
            self._model = _word(message["model"])
        self._usage.add(message.get("usage"))

    def _add_block(self, index: Any, block: dict[str, Any], suspect: bool) -> str:
        """Register a block, at its start or complete; return its initial text."""
        if _index(index) in self._blocks:
            raise ValueError("two blocks of one number")
        block = _checked(block, suspect)
        self._blocks[index], self._pieces[index] = block, []
        self._write(_written_in(block))
        return block["text"] if block["type"] == "text" else ""

    def _finished(self, index: int) -> tuple[Block, bool]:
        """Merge a block's pieces; False: unusable, a tool call without readable arguments."""
        block, written = self._blocks[index], well_formed("".join(self._pieces[index]))
        kind = block["type"]
        if kind in ("text", "thinking"):
            # The API leaves `citations` out when there are none.
            block = {name: value for name, value in block.items() if name != "citations" or value}
            return {**block, kind: block[kind] + written}, True
        if "input" not in block:
            return block, True
        given = _arguments(written) if written else block["input"]
        readable = given is not None or kind != "tool_use"
        return {**block, "input": given or {}}, readable


def _checked(block: dict[str, Any], suspect: bool) -> Block:
    """Validate a block for storage and fill in the fields its type needs. Raises one of `UNREADABLE` otherwise."""
    kind, given = _word(block["type"]), block.get("input")
    rest = {name: value for name, value in block.items() if name != "input"}
    if not can_be_written(rest):
        raise ValueError("a block that cannot be kept")
    found: Block = repaired(rest) if suspect else rest
    if kind in ("text", "thinking"):
        found[kind] = _text(found.get(kind) or "")
    if kind == "text":
        found["citations"] = _citations(found.get("citations") or [])
    if kind == "tool_use":
        for name in ("id", "name"):  # validated where the call is made
            found[name] = well_formed(given_word) if isinstance(given_word := found.get(name), str) else ""
    if kind == "tool_use":
        found["name"] = named_by_model(found["name"])
    if kind == "tool_use" or "input" in block:
        found["input"] = arguments(given)
    return found


def _arguments(written: str) -> dict[str, Any] | None:
    try:
        return arguments(parse(written.encode()))
    except ValueError:
        return None


def _citations(given: list[Any]) -> list[Any]:
    return [repaired(one) for one in given if isinstance(one, dict) and _is_citation(one)]


def _is_citation(one: dict[str, Any]) -> bool:
    """Check that the displayed fields of a citation are text or absent."""
    shown = ("cited_text", "document_title", "title", "source")
    return can_be_written(one) and all(isinstance(one.get(name) or "", str) for name in shown)


def _written_in(block: dict[str, Any]) -> str:
    return "".join(str(block.get(name) or "") for name in ("text", "thinking", "input", "signature", "data"))


def _index(index: Any) -> int:
    if type(index) is not int or not 0 <= index < MAX_BLOCKS:
        raise ValueError("no number of a block")
    return index


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def _word(value: Any) -> str:
    word = well_formed(_text(value))
    if not 0 < len(word) <= MAX_WORD:
        raise ValueError("no name, or a very long one")
    return word
