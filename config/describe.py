"""Types of settings in words, for the page of settings and for what is said of a wrong one."""

from __future__ import annotations

from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

_WORDS: dict[Any, str] = {
    SecretStr: "secret",
    str: "text",
    int: "whole number",
    float: "number",
    bool: "true or false",
}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def type_of(field: FieldInfo) -> str:
    """`whole number ≥ 0 and ≤ 65535`, `one of reject, queue`."""
    if names := choices(field):
        return f"one of {', '.join(names)}"
    word = _WORDS.get(_plain(field.annotation), "path")
    return " ".join([word, " and ".join(_bounds(field))]).strip()


def choices(field: FieldInfo) -> tuple[str, ...]:
    """What a setting may be, where that is a short list."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def _plain(annotation: Any) -> Any:
    """The type beside `None`."""
    if isinstance(annotation, UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _bounds(field: FieldInfo) -> Iterator[str]:
    for constraint in field.metadata:
        for attribute, sign in _SIGNS.items():
            if hasattr(constraint, attribute):
                yield f"{sign} {getattr(constraint, attribute)}"
