"""Arguments of a call against the pinned schema: checked before a person is asked and before the call."""

from __future__ import annotations

from typing import Any

import pytest

from service.mcp.arguments import ArgumentCheck
from service.mcp.pins import Pin


def check(schema: dict[str, Any], arguments: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    pin = Pin("1", {"input_schema": {"type": "object", "properties": {}, **schema}}, None)
    return [(one["loc"], one["msg"]) for one in ArgumentCheck(lambda: pin)(arguments)]


SCHEMA = {
    "properties": {"to": {"type": "string", "maxLength": 5}, "n": {"type": "integer"}},
    "required": ["to"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    "head", [{}, {"$schema": "http://json-schema.org/draft-07/schema#", "$id": "https://x.example/"}]
)
def test_faults_name_places_and_never_values(head: dict[str, Any]) -> None:
    schema = {**SCHEMA, **head}
    assert check(schema, {"to": "ann", "n": 1}) == []
    assert check(schema, {}) == [((), '"to" is a required property')]
    assert check(schema, {"to": "secret-word"}) == [(("to",), "does not match the schema's maxLength")]
    assert check(schema, {"to": "ann", "n": "secret"}) == [(("n",), "does not match the schema's type")]
    assert check(schema, {"to": "ann", "secret": 1}) == [
        ((), "does not match the schema's additionalProperties")
    ]


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"to": {"$ref": "https://elsewhere.example/schema"}}},
        {"$defs": {"a": {"properties": {"a": {"$ref": "#/$defs/a"}}}}, "$ref": "#/$defs/a"},
        {"properties": {"to": {"type": "strin"}}},
        {"properties": {"to": {"pattern": "(?=a)a"}}},
    ],
)
def test_schema_that_cannot_be_checked_leaves_the_check_to_the_server(schema: dict[str, Any]) -> None:
    assert check(schema, {"to": 1}) == []


def test_another_definition_is_checked_once_it_is_pinned() -> None:
    pins: list[Pin | None] = [None]
    checked = ArgumentCheck(lambda: pins[0])
    assert checked({"n": "x"}) == []
    pins[0] = Pin("1", {"input_schema": {"properties": {"n": {"type": "integer"}}}}, None)
    assert len(checked({"n": "x"})) == 1
    pins[0] = Pin("2", {"input_schema": {"properties": {"n": {"type": "string"}}}}, None)
    assert checked({"n": "x"}) == []
