"""Lenient parsing of JSON from a model or its server, and repair into what every encoder can write.

A character beyond the basic plane is two JSON escapes, a surrogate pair, which a stream may split. A lone surrogate,
and NUL, which PostgreSQL cannot store, become U+FFFD.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

import orjson

MAX_DEPTH = 200  # of one value, which is later nested in others; orjson writes 254 levels
_SUSPECT = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
_HIGH_SURROGATES = ("\ud800", "\udbff")
_INTEGERS = range(-(2**63), 2**64)


def parse(data: bytes) -> Any:
    """Parse JSON; strings may hold lone surrogates: see `well_formed`. Raises `ValueError`."""
    try:
        return orjson.loads(data)
    except ValueError:
        pass
    try:
        return json.loads(data.decode("utf-8", "replace"))
    except RecursionError:
        raise ValueError("nested too deep") from None


def is_suspect(data: bytes) -> bool:
    """Return whether a string in this JSON may need repair."""
    return _SUSPECT.search(data) is not None


def well_formed(text: str) -> str:
    """Repair text so that UTF-8 can encode it and a database store it; join split surrogate pairs."""
    if text.isascii():
        return text.replace("\0", "\ufffd") if "\0" in text else text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\0", "\ufffd")


def ends_in_half(text: str) -> bool:
    """Return whether the text ends in a high surrogate, whose low half the next piece may bring."""
    return bool(text) and _HIGH_SURROGATES[0] <= text[-1] <= _HIGH_SURROGATES[1]


def can_be_written(value: Any) -> bool:
    """Return whether orjson can write the value: not too deep, no NaN or infinity, no integer beyond 64 bits."""
    level = [value]
    for _ in range(MAX_DEPTH):
        following: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                following += item.values()
            elif isinstance(item, list):
                following += item
            elif not _fits(item):
                return False
        if not following:
            return True
        level = following
    return False


def _fits(item: Any) -> bool:
    if isinstance(item, float):
        return math.isfinite(item)
    return not isinstance(item, int) or item in _INTEGERS


def repaired(value: Any) -> Any:
    """Repair every string of a value, keys included. The value must pass `can_be_written`."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, list):
        return [repaired(item) for item in value]
    if isinstance(value, dict):
        return {well_formed(key): repaired(item) for key, item in value.items()}
    return value


def arguments(value: Any) -> dict[str, Any] | None:
    """Repair a tool call's arguments; None when they are no object or cannot be written back as JSON."""
    return repaired(value) if isinstance(value, dict) and can_be_written(value) else None
