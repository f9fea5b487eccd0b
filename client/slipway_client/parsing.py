"""Answers as frozen dataclasses: fields by their type hints, unknown fields kept in `raw`."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, Self

from slipway_client.errors import UnexpectedAnswer

Convert = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Base of answers. `raw` is the JSON as it came, with fields that this version does not know."""

    raw: Mapping[str, Any] = field(repr=False, compare=False, default_factory=dict)

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Build one from parsed JSON. Raises `UnexpectedAnswer` if a field is missing or of another kind."""
        if not isinstance(value, dict):
            raise UnexpectedAnswer(f"{cls.__name__}: expected an object, got {type(value).__name__}.")
        known: dict[str, Any] = {}
        for name, (convert, required) in _fields_of(cls).items():  # type: ignore[arg-type] # a class is hashable
            if name in value:
                try:
                    known[name] = convert(value[name])
                except (ValueError, TypeError, ArithmeticError) as wrong:
                    raise UnexpectedAnswer(f"{cls.__name__}: `{name}` does not fit: {wrong}") from None
            elif required:
                raise UnexpectedAnswer(f"{cls.__name__}: the answer has no `{name}`.")
        return cls(raw=value, **known)


@cache
def _fields_of(cls: Any) -> dict[str, tuple[Convert, bool]]:
    """Return the converter of each field, and whether it is required."""
    hints = typing.get_type_hints(cls)
    return {
        each.name: (_converter(hints[each.name]), each.default is MISSING and each.default_factory is MISSING)
        for each in fields(cls)
        if each.name != "raw"
    }


def _converter(hint: Any) -> Convert:
    if isinstance(hint, type) and issubclass(hint, Model):
        return hint.parse
    if hint is Decimal:
        return Decimal
    if hint is datetime:
        return datetime.fromisoformat
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is list:
        return _each(_converter(inner[0]))
    if origin in (types.UnionType, typing.Union):
        return _or_none(_converter(next(each for each in inner if each is not type(None))))
    return lambda value: value


def _each(convert: Convert) -> Convert:
    return lambda values: [convert(value) for value in values]


def _or_none(convert: Convert) -> Convert:
    return lambda value: None if value is None else convert(value)
