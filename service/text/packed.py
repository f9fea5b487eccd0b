"""Text compressed for a column of text: zlib, then base64."""

from __future__ import annotations

import base64
import zlib


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def unpacked(text: str) -> bytes:
    """Return what was packed. Raises `ValueError` and `zlib.error`."""
    return zlib.decompress(base64.b64decode(text))
