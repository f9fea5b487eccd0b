"""One answer of the Messages API, put together from its events or taken whole. Plain JSON, no SDK objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from service.errors import ModelError, ModelInterrupted
from service.llm.client import ModelReply
from service.llm.upstream import refused
from service.types import Block, Usage

MAX_EVENT_BYTES = 16 * 1024 * 1024
PIECES = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "partial_json"}


class SseData:
    """The data of server-sent events, however the bytes are cut. Names are not needed: the data has a type."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that this chunk ends."""
        lines = (self._rest + chunk).split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > MAX_EVENT_BYTES:
            raise ModelError("The model sent an event that is too large")
        whole, data = list[bytes](), self._data
        for line in lines:
            if line.startswith(b"data:"):
                data.append(line[5:])
            elif data and line in (b"", b"\r"):
                whole.append(data[0] if len(data) == 1 else b"\n".join(data))
                data.clear()
        return whole


def usage_of(raw: Mapping[str, Any]) -> Usage:
    """The upstream's `usage`. Of the server tools, web searches are counted: the others cost no more than tokens."""
    creation = raw.get("cache_creation") or {}
    tools = raw.get("server_tool_use") or {}
    usage = Usage(
        input_tokens=int(raw.get("input_tokens") or 0),
        output_tokens=int(raw.get("output_tokens") or 0),
        cache_read_input_tokens=int(raw.get("cache_read_input_tokens") or 0),
        cache_creation_input_tokens=int(raw.get("cache_creation_input_tokens") or 0),
        cache_creation_1h_input_tokens=int(creation.get("ephemeral_1h_input_tokens") or 0),
        server_tool_requests=int(tools.get("web_search_requests") or 0),
    )
    if min(usage) < 0:
        raise ValueError("a negative number of tokens")
    return usage


class Answer:
    """Takes events with `feed`, or a whole message with `take`, and gives a `ModelReply`."""

    def __init__(self) -> None:
        self.stop_reason: str | None = None
        self._model = ""
        self._blocks: dict[int, Block] = {}
        self._pieces: dict[int, list[str]] = {}
        self._usage: dict[str, Any] = {}
        self.usage: Usage | None = None  # what has been told so far; None when nothing has

    @property
    def written(self) -> str:
        """Everything the model has written so far, of any kind: what an estimate of its output starts from."""
        return "".join(piece for index in sorted(self._pieces) for piece in self._pieces[index])

    def feed(self, data: bytes) -> str:
        """Take one event; the piece of text in it, if any. Raises what the upstream reports, or `ModelError`."""
        try:
            return self._event(orjson.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError("The model sent an event that cannot be read") from error

    def take(self, body: bytes) -> None:
        """Take a whole message. Raises `ModelError` when it is not one."""
        try:
            message = orjson.loads(body)
            self._begin(message)
            self.stop_reason = message["stop_reason"]
            for index, block in enumerate(message["content"]):
                self._blocks[index] = {"type": block["type"], **block}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelError("The model sent an answer that cannot be read") from error

    def reply(self, request_id: str | None, ms: float) -> ModelReply:
        """The whole answer. Raises `ModelInterrupted` when it did not come to its end."""
        if not isinstance(self.stop_reason, str):
            raise ModelInterrupted()
        content = [block for index in sorted(self._blocks) if (block := self._finished(index)) is not None]
        usage = self.usage or Usage()
        return ModelReply(self._model, content, self.stop_reason, usage, request_id=request_id, ms=ms)

    def _event(self, event: dict[str, Any]) -> str:
        kind = event["type"]
        if kind == "content_block_delta":
            return self._delta(event["index"], event["delta"])
        if kind == "content_block_start":
            self._blocks[event["index"]] = dict(event["content_block"])
            self._pieces[event["index"]] = []
        elif kind == "message_start":
            self._begin(event["message"])
        elif kind == "message_delta":
            self.stop_reason = event["delta"].get("stop_reason") or self.stop_reason
            self._add_usage(event.get("usage") or {})
        elif kind == "error":
            raise refused(200, event["error"].get("type"))
        return ""  # ping, content_block_stop, message_stop, and whatever comes in later versions

    def _delta(self, index: int, delta: dict[str, Any]) -> str:
        kind = delta["type"]
        if (name := PIECES.get(kind)) is not None:
            piece: str = delta[name]
            self._pieces[index].append(piece)
            return piece if kind == "text_delta" else ""
        block = self._blocks[index]
        if kind == "citations_delta":
            block["citations"] = [*(block.get("citations") or ()), delta["citation"]]
        elif kind == "signature_delta":
            block["signature"] = delta["signature"]
        return ""

    def _begin(self, message: dict[str, Any]) -> None:
        self._model = str(message["model"])
        self._add_usage(message["usage"])

    def _add_usage(self, usage: Mapping[str, Any]) -> None:
        """Later figures are totals, not increments; a null says nothing."""
        self._usage.update((name, value) for name, value in usage.items() if value is not None)
        self.usage = None  # where the figures are no numbers: an estimate from earlier ones could be too low
        if self._usage:
            self.usage = usage_of(self._usage)

    def _finished(self, index: int) -> Block | None:
        """A block with its pieces in place; None for a tool call that was cut off, which nobody may make."""
        block, written = self._blocks[index], "".join(self._pieces.get(index, ()))
        if not written:
            return block
        if block["type"] in ("text", "thinking"):
            return {**block, block["type"]: block[block["type"]] + written}
        try:
            return {**block, "input": orjson.loads(written)}
        except ValueError as error:
            if self.stop_reason != "tool_use":
                return None
            raise ModelError("The model called a tool with arguments that cannot be read") from error
