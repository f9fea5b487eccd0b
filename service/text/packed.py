"""Text compressed for a column of text: zlib, then base64."""

from __future__ import annotations

import base64
import zlib

MOST_KEPT = 1_400_000  # characters of an answer that is stored to be given again


def packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def kept(data: bytes) -> str | None:
    """Pack an answer to be stored; None for one that is too long."""
    text = packed(data)
    return text if len(text) <= MOST_KEPT else None


def unpacked(text: str) -> bytes:
    """Return what was packed. Raises `ValueError` and `zlib.error`."""
    return zlib.decompress(base64.b64decode(text))
