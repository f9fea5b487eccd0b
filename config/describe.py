"""Type descriptions of settings, for docs/settings.md and error messages."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

_TYPE_NAMES: dict[Any, str] = {
    SecretStr: "secret",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def type_of(field: FieldInfo) -> str:
    """Describe a field's type: `whole number ≥ 0 and ≤ 65535`, `one of reject, queue`."""
    if names := choices(field):
        return f"one of {', '.join(names)}"
    word = _TYPE_NAMES.get(_without_none(field.annotation), "path")
    return " ".join([word, " and ".join(_bounds(field))]).strip()


def choices(field: FieldInfo) -> tuple[str, ...]:
    """Return the values of a `Literal` field, else nothing."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _without_none(annotation: Any) -> Any:
    """Return the type of an optional annotation without `None`."""
    if isinstance(annotation, UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _bounds(field: FieldInfo) -> Iterator[str]:
    for constraint in field.metadata:
        for attribute, sign in _SIGNS.items():
            if hasattr(constraint, attribute):
                yield f"{sign} {getattr(constraint, attribute)}"
