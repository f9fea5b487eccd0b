"""Lossless JSON: numbers keep their digits (1.10, 1e400, integers of any length).

A client's `metadata`, which is echoed, and `context`, which the agent reads, are carried as JSON text, because parsing
turns such numbers into floats.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson


class Number:
    """Number with its original digits."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def loads(data: bytes) -> Any:
    """Parse JSON, with a `Number` for every number. Raises `ValueError`, or `RecursionError` when it is too deep."""
    value = _DECODER.decode(data.decode())
    dumps(value)  # refuses lone surrogates, which the parser accepts
    return value


def dumps(value: Any, *, option: int | None = None) -> bytes:
    """Serialise a value of `loads` as compact JSON. Raises `ValueError` for a lone surrogate; `option` is orjson's."""
    try:
        return orjson.dumps(value, default=_verbatim, option=option)
    except TypeError as error:  # orjson's own error is one
        raise ValueError(str(error)) from None


def indented(text: str) -> str:
    return dumps(loads(text.encode()), option=orjson.OPT_INDENT_2).decode()


def to_stored(text: str | None) -> Any:
    """Convert JSON text for storage: to an object, which every version reads, unless parsing is lossy."""
    if text is None:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:  # a number that no float holds
        return text
    return value if orjson.dumps(value).decode() == text else text


def to_text(value: str | Mapping[str, Any] | None) -> str | None:
    """Convert a stored value, as of `to_stored`, to JSON text."""
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def embedded(value: str | Mapping[str, Any] | None) -> Any:
    """Convert a stored value to a part of an answer that orjson writes."""
    return orjson.Fragment(value) if isinstance(value, str) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_refuse_constant)


def _verbatim(value: Any) -> orjson.Fragment:
    if isinstance(value, Number):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is no JSON")
