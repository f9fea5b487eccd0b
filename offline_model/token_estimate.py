"""Token estimate: deterministic, about four characters per token."""

from __future__ import annotations

import re
from typing import Any

import orjson

from offline_model.shapes import Json

CHARS_PER_TOKEN = 4
PER_MESSAGE = 3
PER_FILE = 1500  # an image or a PDF, whose content is not read
_PIECE = re.compile(r"\s*\w{1,7}|\s*[^\w\s]{1,4}|\s+")


def pieces(text: str) -> list[str]:
    """Split a text into streaming deltas of one output token each."""
    return _PIECE.findall(text)


def of_text(text: str) -> int:
    return (len(text) + CHARS_PER_TOKEN - 1) // CHARS_PER_TOKEN


def of_json(value: object) -> int:
    return (len(orjson.dumps(value)) + CHARS_PER_TOKEN - 1) // CHARS_PER_TOKEN


def of_block(block: Any) -> int:
    """Estimate a content block, or content that is a plain string."""
    if isinstance(block, str):
        return of_text(block)
    kind = block.get("type")
    if kind == "text":
        return of_text(block["text"])
    if kind == "image":
        return PER_FILE
    if kind == "document":
        source = block["source"]
        if source.get("type") == "text":
            return (
                of_text(source["data"])
                + of_text(block.get("title") or "")
                + of_text(block.get("context") or "")
            )
        return of_content(source["content"]) if source.get("type") == "content" else PER_FILE
    if kind == "tool_result":
        return PER_MESSAGE + of_content(block.get("content") or "")
    return of_json({name: value for name, value in block.items() if name != "cache_control"})


def of_content(content: Any) -> int:
    """Estimate a message's content or a system prompt: a string or blocks."""
    return of_text(content) if isinstance(content, str) else sum(map(of_block, content))


def of_request(body: Json) -> int:
    """Estimate a request's input: tools, system, messages, output format. At least 1."""
    total = sum(map(of_json, body.get("tools") or ()))
    total += of_content(body.get("system") or "")
    total += sum(PER_MESSAGE + of_content(message["content"]) for message in body["messages"])
    form = (body.get("output_config") or {}).get("format")
    return max(1, total + (of_json(form) if form else 0))
