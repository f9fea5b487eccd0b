"""Upper bounds on a model call's tokens, and usage estimates for interrupted calls. See docs/adr/0004."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.types import Block, Message, Usage

# Tokens the provider adds to a prompt: its pages name up to 804 for tools; the rest is framing.
FRAME, TOOLS_FRAME, SCHEMA_FRAME = 64, 1_000, 500
OUTPUT_SLACK = 16  # tokens by which the server's count may exceed the limit it cut the answer at
ON_THEIR_WAY = 32  # tokens a stream may have carried already when its connection was cut
LARGEST_WINDOW = 1_000_000  # tokens of a prompt that any model of the price table takes
TEXTUAL = frozenset({"text", "tool_use", "thinking", "redacted_thinking"})


def prompt_bound(
    system: str | Sequence[Block],
    messages: Sequence[Message],
    tools: Sequence[Mapping[str, Any]] = (),
    json_schema: Mapping[str, Any] | None = None,
) -> int | None:
    """Upper bound on the prompt's tokens: in a byte-level tokenizer, a token is at least one byte.

    None where bytes do not bound tokens: an image of a few bytes may be thousands of tokens.
    """
    if not (_textual(system) and all(_textual(message["content"]) for message in messages)):
        return None
    frame = FRAME + (TOOLS_FRAME if tools else 0) + (SCHEMA_FRAME if json_schema else 0)
    return frame + _bytes([system, messages, tools, json_schema])


def counted_bound(counted: int) -> int:
    """Upper bound from the provider's token count, an estimate by its own words: 5 percent and the frame are added."""
    return counted + counted // 20 + FRAME


def interrupted_usage(reported: Usage, written: str, max_tokens: int) -> Usage:
    """Estimate usage of an interrupted stream: the usage reported at its start, plus one token per byte written."""
    written_tokens = len(written.encode("utf-8", "replace")) + ON_THEIR_WAY
    return reported._replace(output_tokens=max(reported.output_tokens, min(written_tokens, max_tokens)))


def estimated_usage(reported: Usage, written: int, prompt: int | None, max_tokens: int) -> Usage | None:
    """Estimate usage of a complete answer that reports none; never less than `reported`, the usage it did report.

    `written` is the answer's bytes, `prompt` the prompt's bound. None without any basis for an estimate.
    """
    output = max(reported.output_tokens, min(written, max_tokens))
    if reported.input_tokens:
        return reported._replace(output_tokens=output)
    return None if prompt is None else reported._replace(input_tokens=prompt, output_tokens=output)


def is_plausible(reported: Usage, prompt: int | None, max_tokens: int) -> bool:
    """Return whether a call can have used this much; `prompt` is the prompt's bound, None if it has none.

    Server tools that search are never offered, so reported searches are implausible.
    """
    sent = reported.input_tokens + reported.cache_read_input_tokens + reported.cache_creation_input_tokens
    return (
        reported.output_tokens <= max_tokens + OUTPUT_SLACK
        and (prompt is None or sent <= prompt)
        and not reported.server_tool_requests
    )


def _textual(content: Any) -> bool:
    return isinstance(content, str) or (isinstance(content, list | tuple) and all(map(_is_text, content)))


def _is_text(block: Any) -> bool:
    """Return whether bytes bound the block's tokens; False for anything unknown, which may come from outside."""
    if not isinstance(block, Mapping):
        return False
    kind = block.get("type")
    if kind == "tool_result":
        return _textual(block.get("content") or "")
    if kind == "document":
        source = block.get("source")
        return isinstance(source, Mapping) and source.get("type") == "text"
    return isinstance(kind, str) and kind in TEXTUAL


def _bytes(sent: list[object]) -> int:
    try:
        data = orjson.dumps(sent)
    except TypeError:  # half a surrogate pair; the client refuses it with a better message
        data = json.dumps(sent, default=str).encode()
    if data.isascii():
        return len(data)
    # A tokenizer may normalise text first (NFKC), which makes some characters longer.
    return max(len(data), len(unicodedata.normalize("NFKC", data.decode("utf-8", "replace")).encode()))
