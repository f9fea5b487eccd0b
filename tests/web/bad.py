"""Bad input by the dozen, made from the description of the routes, and what an answer to it must look like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import jsonschema_rs

from tests.described import PROBLEM, Description

NOBODY = "0" * 26
# What stands for a path's parameters, where a route is to be reached at all.
PATH_VALUES = {
    "agent": "assistant",
    "run_id": f"run_{NOBODY}",
    "session_id": f"ses_{NOBODY}",
    "approval_id": f"apr_{NOBODY}",
    "schedule_id": f"sch_{NOBODY}",
    "user_id": f"usr_{NOBODY}",
    "workspace_id": f"wsp_{NOBODY}",
    "key_id": f"key_{NOBODY}",
    "scope": f"session:ses_{NOBODY}",
    "note_key": "language",
    "document_id": f"doc_{NOBODY}",
    "name": "app.js",
}
BODIES: dict[str, bytes] = {
    "empty": b"",
    "space": b"  \n",
    "open brace": b"{",
    "open string": b'{"input": "x',
    "half a word": b"nul",
    "single quotes": b"{'input': 'x'}",
    "trailing comma": b'{"input": "x",}',
    "two values": b"{} {}",
    "not UTF-8": b'{"input": "\xff\xfe"}',
    "UTF-16": '{"input": "x"}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"input": "x"}',
    "lone surrogate": b'{"input": "\\ud800"}',
    "lone surrogate as a name": b'{"\\udfff": 1}',
    "raw surrogate": b'{"input": "\xed\xa0\x80"}',
    "raw NUL": b'{"input": "a\x00b"}',
    "control character": b'{"input": "a\x01b"}',
    "NaN": b'{"input": NaN}',
    "infinity": b'{"input": -Infinity}',
    "number too large": b'{"input": 1e999999}',
    "digits without end": b'{"input": ' + b"9" * 5000 + b"}",
    "nested lists": b"[" * 100_000,
    "nested and closed": b"[" * 50_000 + b"]" * 50_000,
    "nested objects": b'{"context":' * 20_000,
    "form": b"input=x&username=y",
    "XML": b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e;</x>",
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "a list": b"[]",
    "nothing": b"null",
    "true": b"true",
    "a number": b"0",
    "a string": b'"text"',
}
DEEP: Any = json.loads("[" * 200 + "]" * 200)
VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    10**18,
    10**30,
    -(2**63) - 1,
    1e308,
    "",
    " ",
    "x",
    "5",
    "true",
    "a\x00b",
    "\u202e\ufffe😀",
    "x" * 1025,
    "2030-13-45T99:99:99Z",
    "https://[::",
    [],
    [None],
    [[]],
    {},
    {"": ""},
    {"\x00": "\x00"},
    {"__proto__": {"constructor": {}}},
    DEEP,
)
PATHS = (
    "%00",
    "a%00b",
    "%ff%fe",
    "%ed%a0%80",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c..%5cetc",
    "%0d%0aSet-Cookie:%20a=b",
    "%F0%9F%92%A9",
    "%E2%80%AE",
    "run_",
    f"run_{NOBODY}x",
    f"ses_{'z' * 26}",
    "0",
    "-1",
    "1e9",
    "None",
    "' OR 1=1 --".replace(" ", "%20"),
    "%7B%7B7*7%7D%7D",
    "%25n%25s",
    "%",
    "%zz",
    "a" * 3000,
    "*",
    "~",
)
QUERIES = (
    "",
    "0",
    "-1",
    "101",
    "1e3",
    "0x10",
    "１２",
    "²",
    "NaN",
    "null",
    " 1 ",
    "9" * 3900,
    "\x00",
    "a\x00b",
    "\ud800",
    "😀",
    "' OR 1=1 --",
    "x" * 3000,
    f"run_{NOBODY}",
    "2026-02-30",
    "9999-99-99T99:99:99Z",
    "day,day,nothing",
)


def refused(answer: httpx2.Response, *statuses: int) -> dict[str, Any]:
    """The problem that the answer is; its status is the client's fault, and one of `statuses` where any are given."""
    where = f"{answer.request.method} {answer.request.url} → {answer.status_code} {answer.text[:300]}"
    assert 400 <= answer.status_code < 500, where
    assert not statuses or answer.status_code in statuses, where
    assert answer.headers["Content-Type"] == PROBLEM, where
    problem: dict[str, Any] = answer.json()
    for name in ("type", "title", "detail", "instance", "code", "request_id"):
        assert isinstance(problem[name], str) and problem[name], f"{where}: no {name}"
    assert problem["status"] == answer.status_code, where
    assert problem["type"] == f"/docs/errors#{problem['code']}", where
    assert problem["request_id"] == answer.headers["X-Request-ID"], where
    assert "Traceback" not in answer.text and "sqlalchemy" not in answer.text.lower(), where
    return problem


def survived(answer: httpx2.Response) -> None:
    """Check that the answer is no 5xx, and any refusal a valid problem."""
    if answer.status_code >= 400:
        refused(answer)


def url_of(path: str, **values: str) -> str:
    """`path` with its parameters filled in. The agent that may be stopped is not the one that is asked."""
    stopped = {"agent": "analyst"} if path.startswith("/v1/admin/agents/") else {}
    return path.format(**{**PATH_VALUES, **stopped, **values})


def with_body(description: Description) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(method, path, schema of the body) of every route that takes one."""
    for method, path, operation in description.operations():
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            yield method, path, {**schema, "components": description.document["components"]}


def properties(schema: dict[str, Any]) -> dict[str, Any]:
    """The fields of a body's schema."""
    name = schema["$ref"].rpartition("/")[2]
    found: dict[str, Any] = schema["components"]["schemas"][name]["properties"]
    return found


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether the description allows it. What JSON cannot say (NUL, size of a number) it does not know."""
    return bool(jsonschema_rs.validator_for(schema).is_valid(value))


def query(value: str) -> str:
    return quote(value, errors="surrogatepass")
