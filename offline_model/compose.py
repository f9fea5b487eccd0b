"""Message composition: cut blocks to max_tokens and stop sequences, add usage, render as JSON or SSE events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from offline_model import token_estimate
from offline_model.caching import Cached
from offline_model.shapes import Json, next_id, offline_name, sse

TOOL_PIECES = 3  # deltas per streamed tool input
PING = sse("ping", {"type": "ping"})


@dataclass(frozen=True)
class Part:
    """Block with its streaming deltas and output tokens."""

    block: Json
    pieces: list[str]
    tokens: int


@dataclass(frozen=True)
class Answer:
    """Finished message, to send as JSON or as a stream."""

    id: str
    model: str
    parts: list[Part]
    stop_reason: str
    stop_sequence: str | None
    input: Cached
    tier: str = "standard"

    @property
    def output_tokens(self) -> int:
        return max(1, sum(part.tokens for part in self.parts))

    def usage(self, output: int | None = None) -> Json:
        return self.input.usage(self.output_tokens if output is None else output, self.tier)

    def message(self) -> Json:
        """Return the message object."""
        return self._shell(
            [part.block for part in self.parts], self.stop_reason, self.stop_sequence, self.usage()
        )

    def _shell(self, content: list[Json], reason: str | None, sequence: str | None, usage: Json) -> Json:
        return {
            "id": self.id, "type": "message", "role": "assistant", "model": offline_name(self.model),
            "content": content, "stop_reason": reason, "stop_sequence": sequence, "stop_details": None,
            "container": None, "usage": usage,
        }  # fmt: skip

    def opening(self) -> bytes:
        """Render message_start; counts one output token already, as upstream."""
        message = self._shell([], None, None, self.usage(1))
        return sse("message_start", {"type": "message_start", "message": message})

    def events(self) -> Iterator[tuple[bytes, int]]:
        """Yield (event, its tokens) for everything between message_start and message_delta."""
        for index, part in enumerate(self.parts):
            start = {"type": "content_block_start", "index": index, "content_block": _emptied(part.block)}
            yield sse("content_block_start", start) + (PING if index == 0 else b""), 0
            yield from _deltas(index, part)
            yield sse("content_block_stop", {"type": "content_block_stop", "index": index}), 0

    def closing(self) -> bytes:
        """Render message_delta with the cumulative usage, and message_stop."""
        usage = self.usage()
        kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens",
                 "output_tokens_details", "server_tool_use")  # fmt: skip
        delta = {
            "stop_reason": self.stop_reason,
            "stop_sequence": self.stop_sequence,
            "stop_details": None,
            "container": None,
        }
        event = {"type": "message_delta", "delta": delta, "usage": {kind: usage[kind] for kind in kinds}}
        return sse("message_delta", event) + sse("message_stop", {"type": "message_stop"})


def finish(blocks: list[Json], body: Json, cached: Cached, seed: str, exact: int | None = None) -> Answer:
    """Cut the blocks to the request's limits. `exact` makes the text that many deltas long."""
    parts = [_part(block) for block in blocks]
    if exact is not None and all(part.block["type"] == "text" for part in parts):
        parts = [_stretched("".join(part.block["text"] for part in parts), exact)]
    parts, sequence = _cut_at_stop(parts, body.get("stop_sequences") or [])
    fitting, full = _cut_at_budget(parts, body["max_tokens"])
    if not full:
        reason, sequence = "max_tokens", None
    elif sequence is not None:
        reason = "stop_sequence"
    else:
        reason = "tool_use" if any(part.block["type"] == "tool_use" for part in fitting) else "end_turn"
    return Answer(
        next_id("msg", seed), body["model"], fitting, reason, sequence, cached, body.get("_tier", "standard")
    )


def _part(block: Json) -> Part:
    if block["type"] == "text":
        pieces = token_estimate.pieces(block["text"])
        return Part(block, pieces, len(pieces))
    text = orjson.dumps(block["input"]).decode()
    size = max(1, -(-len(text) // TOOL_PIECES))
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    return Part(
        block,
        pieces,
        max(len(pieces), token_estimate.of_json(block["input"]) + token_estimate.of_text(block["name"])),
    )


def _stretched(text: str, count: int) -> Part:
    """Make a text of exactly `count` pieces, by repetition if needed."""
    once = token_estimate.pieces(text) or ["offline"]
    again = [" " + once[0].lstrip(), *once[1:]]
    pieces = once + again * (count // len(again))
    return _text_part(None, pieces[:count])


def _text_part(block: Json | None, pieces: list[str]) -> Part:
    return Part(
        {"citations": None, **(block or {}), "type": "text", "text": "".join(pieces)}, pieces, len(pieces)
    )


def _cut_at_stop(parts: list[Part], stops: list[str]) -> tuple[list[Part], str | None]:
    """Cut at the first stop sequence in any text block; return it too."""
    for i, part in enumerate(parts if stops else ()):
        text = part.block.get("text", "")
        places = [(text.index(stop), stop) for stop in stops if stop in text]
        if places:
            end, stop = min(places)
            cut = _text_part(part.block, token_estimate.pieces(text[:end]))
            return [*parts[:i], *([cut] if cut.pieces else [])], stop
    return parts, None


def _cut_at_budget(parts: list[Part], budget: int) -> tuple[list[Part], bool]:
    """Cut to max_tokens; also return whether nothing was cut. Tool calls are kept whole or dropped."""
    fitting: list[Part] = []
    for part in parts:
        if part.tokens > budget:
            if part.block["type"] == "text" and budget > 0:
                fitting.append(_text_part(part.block, part.pieces[:budget]))
            return fitting, False
        fitting.append(part)
        budget -= part.tokens
    return fitting, True


def _emptied(block: Json) -> Json:
    """Return a block in its content_block_start form."""
    if block["type"] == "text":
        return {"type": "text", "text": "", "citations": [] if block["citations"] else None}
    return block | {"input": {}}


def _deltas(index: int, part: Part) -> Iterator[tuple[bytes, int]]:
    head = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":' % index
    if part.block["type"] == "text":
        for piece in part.pieces:
            yield head + b'{"type":"text_delta","text":%b}}\n\n' % orjson.dumps(piece), 1
        for citation in part.block["citations"] or ():
            yield head + orjson.dumps({"type": "citations_delta", "citation": citation}) + b"}\n\n", 0
        return
    share, rest = divmod(part.tokens, len(part.pieces))
    for i, piece in enumerate(part.pieces):
        yield (
            head + b'{"type":"input_json_delta","partial_json":%b}}\n\n' % orjson.dumps(piece),
            share + (i < rest),
        )
