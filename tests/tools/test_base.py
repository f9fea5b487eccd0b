"""`@tool`: the schema shown to the model, validation of arguments, and refused functions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jsonschema_rs
import pytest
from pydantic import AfterValidator, BaseModel, Field

from service.tools import BadTool, Tool, ToolContext, ToolFailed, ToolOutput, tool
from service.tools.base import BadResult

MakeContext = Callable[..., ToolContext]


class Place(BaseModel):
    title: str
    zip_code: int | None = None


@tool(idempotent=True, risk="read", timeout=5)
def weather(
    where: Place,
    days: Annotated[int, Field(ge=1, le=7)] = 1,
    *,
    unit: Literal["C", "F"] = "C",
    context: ToolContext,
) -> dict[str, Any]:
    """Tell the weather.

    Use it for any question about rain.

    Args:
        where: The place.
        days: How many days: today is 1.
    """
    return {"zip": where.zip_code, "days": days, "unit": unit, "key": context.idempotency_key}


def test_the_model_sees_name_docstring_and_parameters() -> None:
    shown = weather.for_model()
    assert shown["name"] == "weather"
    assert shown["description"] == "Tell the weather.\n\nUse it for any question about rain."
    schema = shown["input_schema"]
    assert jsonschema_rs.meta.is_valid(schema)
    assert schema["type"] == "object"
    assert schema["additionalProperties"] is False
    assert schema["required"] == ["where"]
    assert set(schema["properties"]) == {"where", "days", "unit"}
    assert schema["properties"]["days"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": 7,
        "default": 1,
        "description": "How many days: today is 1.",
    }


def test_a_tool_without_parameters_has_an_object_schema() -> None:
    @tool()
    def ping() -> str:
        """Ping."""
        return "pong"

    assert ping.input_schema == {"type": "object", "properties": {}, "additionalProperties": False}


def test_defaults_assume_a_change_and_no_idempotency() -> None:
    @tool()
    def send() -> str:
        """Send."""
        return ""

    assert (send.idempotent, send.risk) == (False, "write")
    assert (weather.idempotent, weather.risk, weather.timeout) == (True, "read", 5)


def test_arguments_come_as_their_types(context: MakeContext) -> None:
    arguments = {"where": {"title": "Bergen", "zip_code": 5003}, "days": "3"}
    returned = weather.run(arguments, context())
    assert returned == {"zip": 5003, "days": 3, "unit": "C", "key": "run_1:toolu_1"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({}, "where: Field required"),
        ({"where": {"title": "x"}, "days": 9}, "days: Input should be less than or equal to 7"),
        ({"where": {"title": "x"}, "context": {}}, "context: There is no such argument"),
        ({"where": {}}, "where.title: Field required"),
        ({"where": "hush"}, "where: Input should be a valid dictionary"),
    ],
)
def test_invalid_arguments_fail_with_their_field(
    context: MakeContext, arguments: dict[str, Any], told: str
) -> None:
    with pytest.raises(ToolFailed) as failure:
        weather.run(arguments, context())
    assert told in str(failure.value)
    assert "hush" not in str(failure.value)


@tool()
def careless(share: Annotated[int, AfterValidator(lambda share: 100 // share)]) -> int:
    """Divide."""
    return share


@pytest.mark.parametrize(
    ("arguments", "places"),
    [
        ({"where": {"title": "x", "zip_code": "5003"}, "days": "3"}, []),
        ({}, [("where",)]),
        ({"where": {"zip_code": "hush"}, "days": 9}, [("where", "title"), ("where", "zip_code"), ("days",)]),
        ({"where": {"title": "x"}, "context": {}}, [("context",)]),
    ],
)
def test_faults_validate_without_a_call(arguments: dict[str, Any], places: list[tuple[str, ...]]) -> None:
    faults = weather.faults(arguments)
    assert [fault["loc"] for fault in faults] == places
    assert "hush" not in str(faults)


def test_an_authors_validator_that_breaks_is_a_fault() -> None:
    assert careless.faults({"share": 4}) == []
    assert [fault["msg"] for fault in careless.faults({"share": 0})] == ["could not be checked"]


def _untyped(x):  # type: ignore[no-untyped-def]
    """X."""


def _without_words(x: int) -> None: ...


def _many(*x: int) -> None:
    """X."""


def _first_only(x: int, /) -> None:
    """X."""


async def _later(x: int) -> None:
    """X."""


@pytest.mark.parametrize("function", [_untyped, _without_words, _many, _first_only, _later])
def test_unsuitable_function_is_a_bad_tool(function: Callable[..., Any]) -> None:
    with pytest.raises(BadTool):
        tool()(function)


@pytest.mark.parametrize(
    "change", [{"name": "no spaces"}, {"timeout": 0}, {"description": ""}, {"name": "a" * 65}]
)
def test_a_tool_made_by_hand_is_checked_too(change: dict[str, Any]) -> None:
    parts: dict[str, Any] = {"name": "x", "description": "X.", "input_schema": {}, "run": lambda *_: None}
    with pytest.raises(BadTool):
        Tool(**{**parts, **change})


def returning(declared: object, value: object) -> Tool:
    def probe() -> object:
        """Probe."""
        return value

    probe.__annotations__["return"] = declared
    return tool()(probe)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (str, "x"),
        (None, None),
        (object, {1, 2}),
        (Any, object()),
        (dict[str, int], {"days": 3}),
        (float, 1),
        (int | None, None),
        (Place, Place(title="Rome")),
        (list[Place], [Place(title="Rome")]),
        (ToolOutput, ToolOutput({"a": 1}, [{"title": "T"}])),
        (Annotated[int, Field(ge=1)], 1),
    ],
)
def test_result_of_the_declared_type_is_returned(
    context: MakeContext, declared: object, value: object
) -> None:
    assert returning(declared, value).run({}, context()) is value


@pytest.mark.parametrize(
    ("declared", "value", "kind"),
    [
        (str, 7, "string_type"),
        (int, "7", "int_type"),
        (dict[str, int], {"days": "secret"}, "int_type"),
        (None, "x", "none_required"),
        (list[Place], [{"title": 7}], "string_type"),
        (Annotated[int, Field(ge=1)], 0, "greater_than_equal"),
    ],
)
def test_result_of_another_type_is_refused_without_its_value(
    context: MakeContext, declared: object, value: object, kind: str
) -> None:
    with pytest.raises(BadResult) as refused:
        returning(declared, value).run({}, context())
    assert kind in str(refused.value) and "secret" not in str(refused.value)


def test_return_type_without_json_is_refused() -> None:
    with pytest.raises(BadTool, match="its return type cannot go as JSON"):
        returning(threading.Event, None)
