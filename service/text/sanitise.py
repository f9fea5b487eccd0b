"""Sanitise text and values for storage: no lone surrogate, no NUL, nothing that is not JSON.

UTF-8 cannot encode lone surrogates and PostgreSQL cannot store NUL: either would fail the write of a whole step.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

REPLACEMENT = "\ufffd"
MAX_DEPTH = 100  # of nested lists and objects; orjson's limit is 254
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_INT64 = range(-(2**63), 2**63)


def storable(text: str) -> str:
    """Replace every lone surrogate and NUL by U+FFFD; the halves of a surrogate pair become one character."""
    if _UNSTORABLE.search(text) is None:
        return text
    joined = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return joined.replace("\0", REPLACEMENT)


def storable_json(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Copy a value with U+FFFD in place of anything that JSON or a database cannot store. Never raises."""
    if isinstance(value, str):
        return storable(str(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value in _INT64 else _printed(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if depth <= 0:
        return REPLACEMENT
    if isinstance(value, Mapping):
        return {_printed(name): storable_json(item, depth - 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [storable_json(item, depth - 1) for item in value]
    return REPLACEMENT


def _printed(value: Any) -> str:
    try:
        return storable(str(value))
    except Exception:  # such as an integer above Python's limit of digits
        return REPLACEMENT
