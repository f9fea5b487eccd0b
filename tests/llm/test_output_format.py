"""JSON Schemas as the Messages API takes them."""

from __future__ import annotations

from typing import Any

import pytest

from service.llm.output_format import output_format

DAY: dict[str, Any] = {"type": "string", "format": "date"}


def test_objects_are_closed_and_bounds_become_words() -> None:
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "days": {"type": "array", "items": {"$ref": "#/$defs/day"}, "minItems": 2},
            "kind": {"enum": ["a", "b"]},
            "note": {"anyOf": [{"type": "string", "maxLength": 9}, {"type": "null"}]},
        },
        "required": ["days"],
        "$defs": {"day": DAY},
    }
    made = output_format(schema)
    assert made is not None and "$schema" not in made
    assert (made["additionalProperties"], made["required"], made["$defs"]) == (False, ["days"], {"day": DAY})
    days = made["properties"]["days"]
    assert "minItems" not in days and "minItems: 2" in days["description"]
    assert "maxLength" not in made["properties"]["note"]["anyOf"][0]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "object"},
        {"type": ["string", "null"]},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {"a": True}},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]},
        {"type": "object", "patternProperties": {"^a": {"type": "string"}}},
        {"type": "array"},
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {"not": {"type": "string"}},
        {"enum": [{"a": 1}]},
        {"enum": []},
        {"type": ["string", "null"], "enum": []},
        {"type": "string", "enum": ["a"], "const": "a"},
        {"type": "object", "properties": {"a": {"if": {"type": "string"}}}},
    ],
)
def test_structures_beyond_the_subset_are_left_to_words(schema: dict[str, Any]) -> None:
    assert output_format(schema) is None
