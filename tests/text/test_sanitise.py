"""Sanitised text and values, which any database and wire can carry."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from service.text.sanitise import MAX_DEPTH, storable, storable_json


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("plain ü \U0001f600", "plain ü \U0001f600"),
        ("a\0b", "a\ufffdb"),
        ("\ud83d", "\ufffd"),
        ("\ude00\ud83d", "\ufffd\ufffd"),
        ("a\ud83db\ude00c", "a\ufffdb\ufffdc"),
        ("\ud83d\ude00", "\U0001f600"),  # both halves are there: one character
        ("\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        ("\ufffe\uffff\x01", "\ufffe\uffff\x01"),
    ],
)
def test_only_unstorable_characters_are_replaced(text: str, kept: str) -> None:
    assert storable(text) == kept
    storable(text).encode()  # which raises for half a pair


@pytest.mark.parametrize(
    "value", [None, True, 0, -(2**63), 2**63 - 1, 1.5, "x", [1, ["a"]], {"a": {"b": []}}]
)
def test_valid_json_is_unchanged(value: Any) -> None:
    assert storable_json(value) == value


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (2**63, str(2**63)),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (object(), "\ufffd"),
        (b"x", "\ufffd"),
        ({1: {"\ud800": "\0"}}, {"1": {"\ufffd": "\ufffd"}}),
        ((1, {2}), [1, [2]]),
    ],
)
def test_everything_else_becomes_json(value: Any, kept: Any) -> None:
    assert storable_json(value) == kept
    assert orjson.dumps(storable_json(value))


def test_depth_has_an_end() -> None:
    value: Any = []
    value.append(value)
    found, depth = storable_json(value), 0
    while isinstance(found, list):
        found, depth = found[0], depth + 1
    assert (found, depth) == ("\ufffd", MAX_DEPTH)


def test_an_integer_that_python_does_not_print() -> None:
    assert storable_json({"n": 10**5000, 10**5000: 1}) == {"n": "\ufffd", "\ufffd": 1}
