"""Images and documents for tests: real first bytes, and a random rest of any size."""

from __future__ import annotations

import os
from base64 import b64encode
from hashlib import sha256
from typing import Any

HEADS = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\x00\x00\x00\x00WEBP",
    "application/pdf": b"%PDF-1.7\n",
}


def made(media_type: str, size: int = 1_000) -> bytes:
    head = HEADS[media_type]
    return head + os.urandom(size - len(head))


def block(media_type: str, content: bytes) -> dict[str, Any]:
    """Block of the Messages API."""
    source = {"type": "base64", "media_type": media_type, "data": b64encode(content).decode()}
    return {"type": "document" if media_type == "application/pdf" else "image", "source": source}


def data_url(media_type: str, content: bytes) -> str:
    return f"data:{media_type};base64,{b64encode(content).decode()}"


def reference(media_type: str, content: bytes) -> dict[str, Any]:
    """Reference as a run shows it."""
    kind = "document" if media_type == "application/pdf" else "image"
    digest = sha256(content).hexdigest()
    return {"type": kind, "media_type": media_type, "size": len(content), "digest": digest}


def sentence(media_type: str, content: bytes) -> str:
    """Sentence of the offline model about a file that it was given."""
    told = reference(media_type, content)
    return f"I was given {told['type']} {media_type} of {len(content)} bytes, sha256 {told['digest']}."
