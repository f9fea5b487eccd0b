"""Images and PDFs of a request: checked by their first bytes, and told of in the answer. Their content is not read."""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from offline_model.shapes import Json, invalid

SIGNATURES = {
    "image/png": b"\x89PNG",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
    "application/pdf": b"%PDF-",
}


def check(source: Json, path: str) -> None:
    """Check a source in base64. Raises 400."""
    kind, data = source.get("media_type"), source.get("data")
    if kind not in SIGNATURES:
        raise invalid(f"{path}source.media_type: Input should be one of {', '.join(SIGNATURES)}")
    if not isinstance(data, str) or not _bytes(data).startswith(SIGNATURES[kind]):
        raise invalid(f"{path}source.data: Image or document does not match the provided media type {kind}")


def told(messages: list[Json]) -> list[str]:
    """Return a sentence for each image and PDF in messages, with its media type, size and digest."""
    return [
        f"I was given {block['type']} {source['media_type']} of {len(content)} bytes, "
        f"sha256 {sha256(content).hexdigest()}."
        for message in messages
        for block in _files(message["content"])
        if (source := block["source"]).get("type") == "base64" and (content := _bytes(source["data"]))
    ]


def _files(content: Any) -> Iterator[Json]:
    for block in content if isinstance(content, list) else ():
        if block["type"] in ("image", "document"):
            yield block
            yield from _files(block["source"].get("content"))
        elif block["type"] == "tool_result":
            yield from _files(block.get("content"))


def _bytes(data: str) -> bytes:
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except ValueError:
        return b""
