"""Check of a call's arguments against the pinned schema of its tool, before a person is asked and before the call."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from service.mcp.pins import Pin
from service.text.json_schema import JsonSchema, SchemaFault

_HEAD = ("$schema", "$id", "id")  # many servers name draft 7, whose usual words mean the same


def compiled(schema: Mapping[str, Any]) -> JsonSchema | None:
    """Return the schema for checks; None where it is not valid, refers to itself or elsewhere, or is too large."""
    try:
        return JsonSchema({name: value for name, value in schema.items() if name not in _HEAD})
    except SchemaFault:
        return None


class ArgumentCheck:
    """Check for one tool; compiled again when another definition is pinned. Thread-safe: replaced as a whole."""

    def __init__(self, pin: Callable[[], Pin | None]) -> None:
        self._pin = pin
        self._last: tuple[str, JsonSchema | None] = ("", None)

    def __call__(self, arguments: Mapping[str, Any]) -> list[ErrorDetails]:
        """List faults, without values of the arguments; none where the schema cannot be checked: the server does."""
        pin = self._pin()
        if pin is None:
            return []
        digest, schema = self._last
        if digest != pin.digest:
            schema = compiled(pin.definition["input_schema"])
            self._last = pin.digest, schema
        if schema is None:
            return []
        length = len(json.dumps(arguments, ensure_ascii=False))
        return [
            {"type": one.keyword, "loc": one.path, "msg": _message(one.keyword, one.message), "input": None}
            for one in schema.faults(arguments, length)
        ]


def _message(keyword: str, message: str) -> str:
    """Return the library's message only where it names nothing but the schema's properties."""
    return (
        message if keyword in ("required", "length", "schema") else f"does not match the schema's {keyword}"
    )
