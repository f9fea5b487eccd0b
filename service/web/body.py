"""JSON body of a request: read, bounded and parsed before any other use.

The bounds keep the cost of a body near its size. A body of 1 MiB can hold half a million values, of 60 bytes each once
parsed, and many times that if each causes an error with a pointer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

import orjson
from werkzeug.exceptions import HTTPException

from service.errors import BadRequest, Invalid, InvalidJson, TooLarge, UnsupportedMediaType, fault
from service.text import exact_json
from service.text.exact_json import Number
from service.web.current import Request, current

MAX_BODY = 1024 * 1024  # bytes; the API's documented limit
PUBLIC_BODY = 16 * 1024  # bytes, without authentication: a name and a password, each character escaped
DEEPEST = 64  # nesting levels; a body is stored inside other objects, and orjson writes 254
MAX_VALUES = 20_000  # values in a body
MAX_MEMBERS = 1_000  # members of one object
MAX_NUMBER = 1_000  # characters; a double in full has 309 or more
SLOW_SECONDS = 0.25  # a body that took longer may come from a caller who has lost their rights meanwhile
MAX_PART = 128  # characters of a member's name in a pointer
AS_TEXT = ("metadata", "context")  # fields stored as JSON text, with numbers as written
EXACT = (*AS_TEXT, "arguments")  # fields whose numbers are not rounded while parsing
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)


def raw_json(most: int = MAX_BODY) -> Any:
    """Return the request's JSON, of any type, which must not be changed.

    Repeats the checks of a guard after a slow body. Raises `TooLarge`, `UnsupportedMediaType`, `InvalidJson`,
    `Invalid`, `BadRequest` for an unreadable body, and `Overloaded` without room for a large one.
    """
    request = current()
    if request.body is ...:
        began = time.monotonic()
        request.body = _body(request, most)
        if request.check_again is not None and time.monotonic() - began > SLOW_SECONDS:
            request.check_again(request)
    return request.body


def _body(request: Request, most: int) -> Any:
    length = int(request.environ.get("CONTENT_LENGTH") or 0)  # the server has verified that it is a number
    if length <= most and length > MAX_BODY:
        request.hold_bytes(length)
    if length > most or len(data := _read(request, length, most)) > most:
        raise TooLarge(f"A body may have {most} bytes at most.")
    if request.environ.get("CONTENT_TYPE") != "application/json":  # fast path: nearly all clients send this
        kind = request.mimetype
        if kind != "application/json" and not kind.endswith("+json"):
            raise UnsupportedMediaType("Send the body as application/json.")
    if _has_too_many_values(data):
        raise fault("", f"must not have more than {MAX_VALUES} values")
    return _parse(data)


def json_in(texts: Mapping[str, str]) -> dict[str, Any]:
    """Parse JSON objects that fields hold as text, by the fields' pointers; within the bounds of one body together.

    Raises `Invalid`.
    """
    values: dict[str, Any] = {}
    if _has_too_many_values("\n".join(texts.values()).encode()):
        raise fault(
            next(iter(texts)), f"must not have more than {MAX_VALUES} values, with others of its kind"
        )
    for where, text in texts.items():
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            value = None
        if not isinstance(value, dict):
            raise fault(where, "must be a JSON object as text")
        try:
            _refuse_unkeepable(value, [])
        except Invalid as wrong:
            raise fault(where, wrong.errors[0]["detail"]) from None
        values[where] = value
    return values


def escape(part: str) -> str:
    """Escape a member's name as a part of a JSON pointer."""
    return part.replace("~", "~0").replace("/", "~1")


def _read(request: Request, length: int, most: int) -> bytes:
    """Read the body, of `length` bytes or in chunks. Raises `BadRequest` if it is incomplete or malformed."""
    request.max_content_length = most + 1  # at the limit, Werkzeug truncates a chunked body silently
    try:
        data: bytes = request.environ["wsgi.input"].read(length) if length else _chunks(request, most)
    except HTTPException:
        raise
    except Exception as error:  # each WSGI server has its own exceptions for this
        raise BadRequest("The body cannot be read to its end.") from error
    if len(data) < length:
        raise BadRequest("The body ended before its length was reached.")
    return data


def _chunks(request: Request, most: int) -> bytes:
    """Read a body whose length nobody has told."""
    data = request.stream.read(MAX_BODY + 1)
    if len(data) > MAX_BODY and most > MAX_BODY:
        request.hold_bytes(most)
        data += request.stream.read()
    return data


def _separators(data: bytes, start: int, end: int) -> int:
    """Count commas and opening brackets: an upper bound on the number of values, less one."""
    return data.count(b",", start, end) + data.count(b"[", start, end) + data.count(b"{", start, end)


def _has_too_many_values(data: bytes) -> bool:
    """Count values without parsing. Strings, which may contain brackets, are excluded only if it makes a difference."""
    if _separators(data, 0, len(data)) <= MAX_VALUES:
        return False
    count = start = 0
    for strings, string in enumerate(_STRING.finditer(data)):
        count += _separators(data, start, string.start())
        start = string.end()
        if count > MAX_VALUES or strings > 2 * MAX_VALUES:  # per value, at most one string and its name
            return True
    return count + _separators(data, start, len(data)) > MAX_VALUES


def _parse(data: bytes) -> Any:
    try:
        value = orjson.loads(data)
        exact = isinstance(value, dict) and not value.keys().isdisjoint(EXACT)
    except orjson.JSONDecodeError:  # possibly a number outside the range of a float
        exact = True
    if exact:
        value = _parse_exactly(data)
    opens = data.count(b"[") + data.count(b"{")
    if exact or opens > DEEPEST or b"\\u0000" in data or data.count(b",") >= MAX_MEMBERS:
        _refuse_unkeepable(value, [])
    return value


def _parse_exactly(data: bytes) -> Any:
    try:
        return exact_json.loads(data)
    except RecursionError:
        raise fault("", f"must not be nested deeper than {DEEPEST} levels") from None
    except ValueError as error:
        line, column = getattr(error, "lineno", 1), getattr(error, "colno", 1)
        raise InvalidJson(f"The body is not valid JSON (line {line}, column {column}).") from None


def _refuse_unkeepable(value: Any, path: list[str | int]) -> None:
    """Check bounds, and that a database can store every value (no NUL). Raises `Invalid`."""
    if isinstance(value, str) and "\x00" in value:
        raise fault(pointer(path), "must not contain a NUL character")
    if isinstance(value, Number) and len(value.text) > MAX_NUMBER:
        raise fault(pointer(path), f"must not have more than {MAX_NUMBER} digits")
    if isinstance(value, dict | list) and len(path) >= DEEPEST:
        raise fault("", f"must not be nested deeper than {DEEPEST} levels")
    if isinstance(value, dict):
        if len(value) > MAX_MEMBERS:
            raise fault(pointer(path), f"must not have more than {MAX_MEMBERS} members")
        for name, inner in value.items():
            _refuse_unkeepable(name, path)
            _refuse_unkeepable(inner, [*path, name])
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            _refuse_unkeepable(inner, [*path, number])


def pointer(path: list[str | int]) -> str:
    """Build a JSON pointer (RFC 6901), cut before a name that is too long to repeat."""
    parts = []
    for part in map(str, path):
        if len(part) > MAX_PART:
            break
        parts.append(f"/{escape(part)}")
    return "".join(parts)
