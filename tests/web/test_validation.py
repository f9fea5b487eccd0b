"""Validation of bodies: accepted values, and pointers to the others."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import AwareDatetime, Field

from service.errors import Invalid, NotFound
from service.web.current import Application, current
from service.web.run_body import RunBody
from service.web.schemas import Body
from service.web.validation import refuse_impossible, validate

small = Application("small")


class Part(Body):
    size: int


class Whole(Body):
    name: str | None = None
    size: int | None = None
    when: AwareDatetime | None = None
    parts: Annotated[tuple[Part, ...], Field(max_length=3)] = ()


def pointers(value: Any, model: type[Body] = Whole) -> set[str]:
    with pytest.raises(Invalid) as refused:
        validate(model, value)
    return {fault["pointer"] for fault in refused.value.errors}


def test_valid_body_is_accepted() -> None:
    whole = validate(Whole, {"name": "x", "size": 5, "when": "2030-01-01T00:00:00Z", "parts": [{"size": 1}]})
    assert whole.size == 5 and whole.when is not None and whole.parts == (Part(size=1),)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"size": "5"}, {"/size"}),
        ({"size": True}, {"/size"}),
        ({"size": 5.5}, {"/size"}),
        ({"name": 5}, {"/name"}),
        ({"when": 1893456000}, {"/when"}),
        ({"when": "2030-01-01T00:00:00"}, {"/when"}),
        ({"parts": [{"size": 1}, {"size": "x"}, {}]}, {"/parts/1/size", "/parts/2/size"}),
        ({"parts": {"0": {}}}, {"/parts"}),
        ({"a/b~c": 1}, {"/a~1b~0c"}),
        ({"name": 1, "size": "x"}, {"/name", "/size"}),
        ([], {""}),
        (None, {""}),
        ("x", {""}),
    ],
)
def test_a_pointer_for_every_field_that_does_not_fit(value: Any, expected: set[str]) -> None:
    assert pointers(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"messages": [{"role": "user", "content": 5}]}, {"/messages/0/content"}),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, None),
        ({"messages": [{"role": "system", "content": "x"}]}, {"/messages/0/role"}),
        ({}, {""}),
        ({"input": "x", "messages": [{"role": "user", "content": "x"}]}, {""}),
    ],
)
def test_pointers_into_a_run_body(value: Any, expected: set[str] | None) -> None:
    """Of a field that may be one thing or another the branches that were tried are no part of the pointer."""
    found = pointers(value, RunBody)
    assert (
        found == expected if expected is not None else all(p.startswith("/messages/0/content") for p in found)
    )


def test_a_value_is_never_repeated() -> None:
    with pytest.raises(Invalid) as refused:
        validate(Whole, {"size": "hunter2-the-password"})
    assert "hunter2" not in str(refused.value.as_problem())


@pytest.mark.parametrize(("path", "error"), [("/a%00b", NotFound), ("/?x=%00", Invalid), ("/?%00", Invalid)])
def test_a_nul_in_an_address(path: str, error: type[Exception]) -> None:
    with small.test_request_context(path), pytest.raises(error):
        refuse_impossible(current())


class Cat(Body):
    type: Literal["cat", "tiger"]


class Dog(Body):
    type: Literal["dog"]


class Owner(Body):
    pets: list[Annotated[Cat | Dog, Field(discriminator="type")]]


@pytest.mark.parametrize(
    ("pet", "detail"),
    [({"type": "it's a secret"}, "Input should be one of 'cat', 'tiger', 'dog'"), ({}, "Field required")],
)
def test_part_of_no_known_kind_is_told_what_kinds_there_are(pet: Any, detail: str) -> None:
    with pytest.raises(Invalid) as refused:
        validate(Owner, {"pets": [pet]})
    assert list(refused.value.errors) == [{"pointer": "/pets/0/type", "detail": detail}]
