"""JSON Schema of users: accepted and refused schemas, and the cost of a check."""

from __future__ import annotations

from typing import Any

import pytest

from service.text.json_schema import MAX_BYTES, MAX_WORK, JsonSchema, SchemaFault, pointer

TOTAL = {"type": "object", "properties": {"total": {"type": "integer", "minimum": 1}}, "required": ["total"]}


def deep(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"items": schema}
    return schema


def doubled(levels: int) -> dict[str, Any]:
    """Each definition refers to the next one twice: 2^levels parts."""
    named = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": {**named, f"d{levels}": {"type": "string"}}}


REFUSED = [
    ({"type": "objec"}, "/type"),
    ({"properties": {"a": {"type": "nope"}}}, "/properties/a/type"),
    ({"properties": {"a/b": {"minimum": "1"}}}, "/properties/a~1b/minimum"),
    ({"properties": {"a": {"$ref": "https://example.com/schema"}}}, "/properties/a/$ref"),
    ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "/properties/a/$ref"),
    ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "/properties/a/$ref"),
    ({"$ref": "#"}, "/$ref"),
    ({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}, "/$ref/items/$ref"),
    ({"$id": "https://example.com/"}, "/$id"),
    ({"properties": {"a": {"$dynamicRef": "#a"}}}, "/properties/a/$dynamicRef"),
    ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
    ({"$schema": 7}, "/$schema"),
    ({"properties": {"a": {"$schema": "http://json-schema.org/draft-04/schema#"}}}, "/properties/a/$schema"),
    ({"enum": [10**30]}, "/enum/0"),
    ({"const": float("inf")}, ""),
    ({"const": {1}}, ""),
    ({"description": "half \ud83d of a pair"}, ""),
    ({"description": "x" * MAX_BYTES}, ""),
    ({"properties": {f"p{n}": True for n in range(1100)}}, ""),
    ({"const": deep(70)}, ""),
]


@pytest.mark.parametrize(("schema", "place"), REFUSED)
def test_a_schema_is_refused_with_its_place(schema: dict[str, Any], place: str) -> None:
    with pytest.raises(SchemaFault) as refused:
        JsonSchema(schema)
    assert pointer(refused.value.path) == place and refused.value.detail


def test_an_unknown_type_is_told_the_types() -> None:
    with pytest.raises(SchemaFault) as refused:
        JsonSchema({"properties": {"a": {"type": "strng"}}})
    assert refused.value.detail.startswith("must be array, boolean, integer")


def unevaluated(levels: int) -> dict[str, Any]:
    """Each level checks the one below again, to know what it has evaluated: 4^levels checks."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"allOf": [{"unevaluatedProperties": schema}], "unevaluatedProperties": False}
    return schema


LONG = {
    "deep": deep(40),
    "2^30": doubled(30),
    "2^12": doubled(12),
    "unevaluated": unevaluated(12),
    "dependent": {"dependentRequired": {f"a{n}": [f"b{m}" for m in range(40)] for n in range(100)}},
}


@pytest.mark.parametrize("schema", LONG.values(), ids=LONG)
def test_a_schema_whose_check_would_take_long_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(SchemaFault, match=r"levels|parts"):
        JsonSchema(schema)


@pytest.mark.parametrize("pattern", ["(", "(?=a)b", r"(a)\1", "(a{1000}){1000}"])
def test_a_pattern_that_may_backtrack_or_explode_is_refused(pattern: str) -> None:
    with pytest.raises(SchemaFault) as refused:
        JsonSchema({"properties": {"a": {"pattern": pattern}}})
    assert pointer(refused.value.path).startswith("/properties/a")


def test_a_pattern_takes_linear_time() -> None:
    text = "a" * 100_000 + "!"
    assert JsonSchema({"pattern": "^(a+)+$"}).faults(text, len(text))


def test_faults_have_place_and_keyword() -> None:
    schema = JsonSchema(TOTAL)
    assert schema.faults({"total": 2}, 12) == []
    (found,) = schema.faults({"total": 0}, 12)
    assert (found.path, found.keyword) == (("total",), "minimum")
    assert [one.keyword for one in schema.faults({}, 2)] == ["required"]
    assert len(JsonSchema({"items": {"type": "string"}}).faults([1] * 100, 300)) == 5


def test_a_value_that_is_too_long_for_its_schema_is_not_checked() -> None:
    (found,) = JsonSchema(TOTAL).faults({"total": 2}, MAX_WORK)
    assert found.keyword == "length"


def test_the_faults_of_a_long_value_are_not_listed() -> None:
    """Each branch of `anyOf` has a fault for each item: 3.75 million."""
    schema: dict[str, Any] = {"type": "null"}
    for _ in range(2):
        schema = {"anyOf": [{"items": schema}] * 5}
    (found,) = JsonSchema(schema).faults([[1] * 100] * 300, 60_000)
    assert found.keyword == "schema"


def test_definitions_formats_and_the_draft_are_taken() -> None:
    schema = JsonSchema(
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "items": {"$ref": "#/$defs/day"},
            "$defs": {"day": {"type": "string", "format": "date"}},
        }
    )
    assert schema.faults(["2026-11-30"], 20) == []
    assert [one.keyword for one in schema.faults(["tomorrow"], 20)] == ["format"]
