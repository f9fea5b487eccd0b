"""JSON that comes back as it was sent: numbers keep their digits (1.10, 1e400, integers of any length).

What a client gives us to keep (`metadata`) or to show to the agent (`context`) is carried as JSON text, because parsing
it makes floats of such numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson


class Number:
    """A number as it was written."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def loads(data: bytes) -> Any:
    """Parse JSON, with a `Number` for every number. Raises `ValueError`, or `RecursionError` when it is too deep."""
    value = _DECODER.decode(data.decode())
    dumps(value)  # which refuses lone surrogates, as the parser does not
    return value


def dumps(value: Any, *, option: int | None = None) -> bytes:
    """Compact JSON of what `loads` returned. Raises `ValueError` for a lone surrogate; `option` is orjson's."""
    try:
        return orjson.dumps(value, default=_written, option=option)
    except TypeError as error:  # orjson's own error is one
        raise ValueError(str(error)) from None


def indented(text: str) -> str:
    """JSON text, laid out with two spaces."""
    return dumps(loads(text.encode()), option=orjson.OPT_INDENT_2).decode()


def kept(text: str | None) -> Any:
    """JSON text as it is kept: as an object, which every version reads, unless parsing it loses something."""
    if text is None:
        return None
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:  # a number that no float holds
        return text
    return value if orjson.dumps(value).decode() == text else text


def text_of(value: str | Mapping[str, Any] | None) -> str | None:
    """JSON text of what `kept` returned."""
    return value if value is None or isinstance(value, str) else orjson.dumps(value).decode()


def embedded(value: str | Mapping[str, Any] | None) -> Any:
    """The same as a part of an answer that orjson writes."""
    return orjson.Fragment(value) if isinstance(value, str) else value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_refuse_constant)


def _written(value: Any) -> orjson.Fragment:
    if isinstance(value, Number):
        return orjson.Fragment(value.text)
    raise TypeError(f"{type(value).__name__} is no JSON")
