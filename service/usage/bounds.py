"""What a model call can use at most, before it is made; and what one that broke off has used. See docs/adr/0004."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.types import Block, Message, Usage

# What the provider adds to a prompt, in tokens. Its pages name up to 804 for tools; the rest is framing.
FRAME, TOOLS_FRAME, SCHEMA_FRAME = 64, 1_000, 500
OUTPUT_SLACK = 16  # tokens by which a server may count an answer otherwise than the one that cut it
ON_THEIR_WAY = 32  # tokens a stream may have carried already when its line was cut
TEXTUAL = frozenset({"text", "tool_use", "thinking", "redacted_thinking"})


def prompt_bound(
    system: str | Sequence[Block],
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    json_schema: Mapping[str, Any] | None = None,
) -> int | None:
    """More tokens than the prompt can have: a token of a byte-level tokenizer is a byte at least.

    None where bytes do not bound tokens: an image of a few bytes may be thousands of tokens.
    """
    if not all(_textual(message["content"]) for message in messages):
        return None
    frame = FRAME + (TOOLS_FRAME if tools else 0) + (SCHEMA_FRAME if json_schema else 0)
    return frame + _bytes([system, messages, tools, json_schema])


def counted_bound(counted: int) -> int:
    """The same from the provider's own count, which it calls an estimate."""
    return counted + counted // 20 + FRAME


def used_so_far(told: Usage, written: str, max_tokens: int) -> Usage:
    """What a stream that was cut short had used: what it told at its start, and a token for each byte it wrote."""
    written_tokens = len(written.encode("utf-8", "replace")) + ON_THEIR_WAY
    return told._replace(output_tokens=max(told.output_tokens, min(written_tokens, max_tokens)))


def used_by(told: Usage, written: int, prompt: int | None, max_tokens: int) -> Usage | None:
    """Estimate what a whole answer used where it does not say so itself: never less than it told.

    `written` are the answer's bytes, `prompt` is the prompt's bound. None: there is nothing to estimate from.
    """
    output = max(told.output_tokens, min(written, max_tokens))
    if told.input_tokens:
        return told._replace(output_tokens=output)
    return None if prompt is None else told._replace(input_tokens=prompt, output_tokens=output)


def can_be(told: Usage, prompt: int | None, max_tokens: int) -> bool:
    """Tell whether a call can have used so much; `prompt` is the prompt's bound, None where there is none.

    A server tool that searches is never offered, so no search can have been made.
    """
    sent = told.input_tokens + told.cache_read_input_tokens + told.cache_creation_input_tokens
    return (
        told.output_tokens <= max_tokens + OUTPUT_SLACK
        and (prompt is None or sent <= prompt)
        and not told.server_tool_requests
    )


def _textual(content: Any) -> bool:
    return isinstance(content, str) or all(map(_is_text, content))


def _is_text(block: Mapping[str, Any]) -> bool:
    kind = block.get("type")
    if kind == "tool_result":
        return _textual(block.get("content") or "")
    if kind == "document":
        return bool(block["source"].get("type") == "text")
    return kind in TEXTUAL


def _bytes(sent: list[object]) -> int:
    try:
        data = orjson.dumps(sent)
    except TypeError:  # half a surrogate pair; the client refuses it, in better words
        data = json.dumps(sent, default=str).encode()
    if data.isascii():
        return len(data)
    # A tokenizer may bring text into a normal form first, and some characters grow by that.
    return max(len(data), len(unicodedata.normalize("NFKC", data.decode("utf-8", "replace")).encode()))
