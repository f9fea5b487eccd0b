"""Structured output of the Messages API: which JSON Schemas it takes, and the form in which it takes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from service.llm.sdk import anthropic

_TYPES = frozenset(["object", "array", "string", "integer", "number", "boolean", "null"])
# The SDK moves keywords that the API does not take, such as bounds, into the description.
_BOUNDS_WORDS = (
    "minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minLength maxLength pattern format "
    "minItems maxItems uniqueItems"
)
_BOUNDS = frozenset(_BOUNDS_WORDS.split())
_WORDS = frozenset(["title", "description", "default", "examples"])
_PRIMITIVE = (str, int, float, bool, type(None))


def output_format(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return a valid schema as `output_config.format` takes it; None if its structure is beyond the API's subset.

    Bounds are left to a check of the answer. Objects take no other members than the listed ones: any answer of that
    kind fits the schema too.
    """
    plain = {name: value for name, value in schema.items() if name != "$schema"}
    return anthropic.transform_schema(plain) if _is_taken(plain) else None


def _is_taken(schema: Any) -> bool:
    if not isinstance(schema, dict):
        return False
    definitions = schema.get("$defs", {}).values()
    rest = {name: value for name, value in schema.items() if name != "$defs" and name not in _WORDS}
    return all(map(_is_taken, definitions)) and _kind(rest)(rest)


def _kind(schema: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], bool]:
    if "$ref" in schema:
        return _is_reference
    if "enum" in schema or "const" in schema:
        return _is_literal
    return _is_choice if schema.keys() & {"anyOf", "oneOf"} else _is_typed


def _is_reference(schema: Mapping[str, Any]) -> bool:
    return schema.keys() == {"$ref"} and schema["$ref"].startswith("#/$defs/")


def _is_literal(schema: Mapping[str, Any]) -> bool:
    values = [schema["const"]] if "const" in schema else schema["enum"]
    one = len(schema.keys() & {"const", "enum"}) == 1
    return (
        one
        and schema.keys() <= {"const", "enum", "type"}
        and bool(values)
        and all(isinstance(value, _PRIMITIVE) for value in values)
    )


def _is_choice(schema: Mapping[str, Any]) -> bool:
    return len(schema) == 1 and all(map(_is_taken, next(iter(schema.values()))))


def _is_typed(schema: Mapping[str, Any]) -> bool:
    kind = schema.get("type")
    if not isinstance(kind, str) or kind not in _TYPES:
        return False
    more = schema.keys() - _BOUNDS - {"type"}
    if kind == "object":
        closed = schema.get("additionalProperties", True) in (True, False)
        members = schema.get("properties", {})
        listed = set(schema.get("required", ())) <= members.keys()
        taken = more <= {"properties", "required", "additionalProperties"} and closed and listed
        return taken and bool(members) and all(map(_is_taken, members.values()))
    if kind == "array":
        return more == {"items"} and _is_taken(schema["items"])
    return not more
