"""Request bodies: JSON that is read, and bodies refused before parsing."""

from __future__ import annotations

from typing import Any

import pytest

from service.errors import Invalid, InvalidJson, TooLarge, UnsupportedMediaType
from service.web.body import DEEPEST, MAX_BODY, raw_json
from service.web.current import Application

small = Application("small")


def read(data: bytes, content_type: str = "application/json") -> Any:
    with small.test_request_context("/", method="POST", data=data, content_type=content_type):
        return raw_json()


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "application/vnd.x+json"]
)
def test_json_by_any_of_its_names(kind: str) -> None:
    assert read(b'{"a": 1}', kind) == {"a": 1}


@pytest.mark.parametrize("data", [b"", b"{", b"NaN", b'"\\ud800"', b"\xff", b"{} {}"])
def test_malformed_body_is_invalid_json(data: bytes) -> None:
    with pytest.raises(InvalidJson):
        read(data)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_other_content_types_are_unsupported(kind: str) -> None:
    with pytest.raises(UnsupportedMediaType):
        read(b"{}", kind)


def test_a_body_is_read_once() -> None:
    with small.test_request_context("/", method="POST", data=b'{"a": 1}', content_type="application/json"):
        assert raw_json() is raw_json()


def test_the_size_of_a_body() -> None:
    assert len(read(b'"' + b"x" * (MAX_BODY - 2) + b'"')) == MAX_BODY - 2
    with pytest.raises(TooLarge):
        read(b'"' + b"x" * (MAX_BODY - 1) + b'"')


def test_the_depth_of_a_body() -> None:
    assert read(b"[" * DEEPEST + b"]" * DEEPEST)
    with pytest.raises(Invalid):
        read(b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1))
    assert len(read(b"[" + b"[]," * 1000 + b"[]]")) == 1001  # many are not deep


@pytest.mark.parametrize(
    ("data", "pointer"),
    [(b'{"a": ["x", "b\\u0000"]}', "/a/1"), (b'{"a": {"\\u0000": 1}}', "/a"), (b'"\\u0000"', "")],
)
def test_nul_is_refused_at_any_place(data: bytes, pointer: str) -> None:
    with pytest.raises(Invalid) as refused:
        read(data)
    assert [fault["pointer"] for fault in refused.value.errors] == [pointer]


def test_escaped_backslash_before_u0000_is_no_nul() -> None:
    assert read(b'"\\\\u0000"') == "\\u0000"
