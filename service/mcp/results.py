"""Results of MCP tools as content for the model: text and structured content; the rest is named and left out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import mcp_types

from service.tools.runner import MAX_CONTENT

MAX_BLOCKS = 100


def content_of(result: mcp_types.CallToolResult) -> Any:
    """Return the text of a result, its structured content, or both where the text says something else."""
    text = _text(result.content)
    structured = result.structured_content
    if structured is None:
        return text
    return structured if not text or _same(text, structured) else {"structured": structured, "text": text}


def _text(blocks: Iterable[Any]) -> str:
    parts: list[str] = []
    length = 0
    for number, block in enumerate(blocks):
        if number >= MAX_BLOCKS or length > MAX_CONTENT:
            parts.append("[more content left out]")
            break
        parts.append(_block(block))
        length += len(parts[-1])
    return "\n".join(parts)


def _block(block: Any) -> str:
    if isinstance(block, mcp_types.TextContent):
        return block.text
    if isinstance(block, mcp_types.ResourceLink):
        return f"[resource: {block.name} {block.uri}]"
    if isinstance(block, mcp_types.EmbeddedResource):
        resource = block.resource
        if isinstance(resource, mcp_types.TextResourceContents):
            return resource.text
        return f"[resource left out: {resource.uri}]"
    return f"[{block.type} left out]"


def _same(text: str, structured: Any) -> bool:
    if len(text) > MAX_CONTENT:
        return False
    try:
        return bool(json.loads(text) == structured)
    except (ValueError, RecursionError):
        return False
