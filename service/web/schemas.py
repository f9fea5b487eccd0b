"""What goes in and out over HTTP: bodies parsed into typed models, and what the OpenAPI page says of each route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from flask import Request, Response, request
from pydantic import BaseModel, ConfigDict, ValidationError
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from service.errors import (
    BadRequest,
    FieldFault,
    Invalid,
    InvalidJson,
    NotFound,
    SlipwayError,
    TooLarge,
    UnsupportedMediaType,
)
from service.web.current import add_headers, asked

M = TypeVar("M", bound=BaseModel)
V = TypeVar("V", bound=Callable[..., Any])
MAX_BODY = 1024 * 1024  # bytes; the contract's limit
LONGEST_NAME = 128  # characters of an id, a name or a scope in a path
DEEPEST = (
    64  # levels of lists and objects in a body; orjson writes 254, and a body is kept inside other objects
)


class Body(BaseModel):
    """A request body: unknown fields and other types are refused, so that a typing error is told and not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Shape(BaseModel):
    """An answer's shape, as the OpenAPI page shows it. Answers are built as dictionaries, for speed."""

    model_config = ConfigDict(extra="allow")


class Problem(Shape):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[dict[str, str]] | None = None


def no_nul(text: str) -> str:
    """For a field that is kept as text: PostgreSQL has no NUL character."""
    if "\x00" in text:
        raise ValueError("must not contain a NUL character")
    return text


@dataclass(frozen=True, slots=True)
class Operation:
    """One route as the OpenAPI page tells it. `stream` names the media type of a streamed answer, `also` others."""

    summary: str
    body: type[BaseModel] | None = None
    returns: Mapping[int, type[BaseModel] | None] = field(default_factory=lambda: {200: None})
    errors: Sequence[type[SlipwayError]] = ()
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tag: str = "Slipway"
    stream: str | None = None
    headers: Sequence[str] = ()
    also: Sequence[str] = ()


def api(
    summary: str,
    *,
    body: type[BaseModel] | None = None,
    returns: Mapping[int, type[BaseModel] | None] | None = None,
    errors: Sequence[type[SlipwayError]] = (),
    query: Mapping[str, Mapping[str, Any]] | None = None,
    tag: str = "Slipway",
    stream: str | None = None,
    headers: Sequence[str] = (),
    also: Sequence[str] = (),
) -> Callable[[V], V]:
    """Describe a view for the OpenAPI page; the view itself is not changed."""

    def describe(view: V) -> V:
        returned = returns or {200: None}
        operation = Operation(summary, body, returned, errors, query or {}, tag, stream, headers, also)
        view.__api__ = operation  # type: ignore[attr-defined]
        return view

    return describe


def refuse_impossible() -> None:
    """Before every request: what can name nothing of ours, and what PostgreSQL takes as no argument."""
    request = asked()
    if "\x00" in request.path:
        raise NotFound()
    for name in (request.view_args or {}).values():
        if len(str(name)) > LONGEST_NAME:
            raise NotFound()
    if b"%00" in request.query_string or b"\x00" in request.query_string:
        raise Invalid("The query must not contain a NUL character.")


def raw_json() -> Any:
    """The request's JSON, whatever it is. Raises what the contract says for size, media type and syntax."""
    request = asked()
    length = int(request.environ.get("CONTENT_LENGTH") or 0)  # the server has seen to it that it is a number
    if length > MAX_BODY or len(data := _body(request)) > MAX_BODY:
        raise TooLarge(f"A body may have {MAX_BODY} bytes at most.")
    if request.environ.get("CONTENT_TYPE") != "application/json":  # what nearly all send: nothing to parse
        kind = request.mimetype
        if kind != "application/json" and not kind.endswith("+json"):
            raise UnsupportedMediaType("Send the body as application/json.")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(
            f"The body is not valid JSON (line {error.lineno}, column {error.colno})."
        ) from None
    if b"\\u0000" in data or data.count(b"[") + data.count(b"{") > DEEPEST:
        _refuse_unkeepable(value)
    return value


def _body(request: Request) -> bytes:
    """Read the body. Raises `BadRequest` for one that breaks off or whose chunks cannot be parsed."""
    try:
        data = request.get_data()
    except HTTPException:
        raise
    except Exception as error:  # each WSGI server has exceptions of its own for this
        raise BadRequest("The body cannot be read to its end.") from error
    if len(data) < (request.content_length or 0):
        raise BadRequest("The body ended before its length was reached.")
    return data


def _refuse_unkeepable(value: Any) -> None:
    """Raises `Invalid` for what is JSON, but which no database keeps (NUL) or no encoder writes (any depth)."""
    todo = [(value, "")]
    while todo:
        item, pointer = todo.pop()
        if isinstance(item, str) and "\x00" in item:
            raise _fault(pointer, "must not contain a NUL character")
        if isinstance(item, dict | list) and pointer.count("/") >= DEEPEST:
            raise _fault("", f"must not be nested deeper than {DEEPEST} levels")
        if isinstance(item, dict):
            todo += [(name, pointer) for name in item]
            todo += [(inner, f"{pointer}/{_escape(name)}") for name, inner in item.items()]
        elif isinstance(item, list):
            todo += [(inner, f"{pointer}/{number}") for number, inner in enumerate(item)]


def _fault(pointer: str, detail: str) -> Invalid:
    return Invalid("The request does not fit; see `errors`.", errors=[{"pointer": pointer, "detail": detail}])


def parse(model: type[M]) -> M:
    """The request's body as `model`. Raises `Invalid` with a pointer to every field that does not fit."""
    return validate(model, raw_json())


def validate(model: type[M], value: Any) -> M:
    """`value` as `model`, or `Invalid` with a pointer to every field that does not fit.

    It goes by way of JSON: pydantic is then strict about the types JSON has, and still reads a date from a string.
    """
    try:
        return model.model_validate_json(orjson.dumps(value))
    except ValidationError as error:
        raise Invalid("The request does not fit; see `errors`.", errors=faults_of(error, value)) from None


def faults_of(error: ValidationError, value: Any) -> list[FieldFault]:
    """A pydantic error as JSON pointers into `value`, which is never repeated itself: it may be a secret."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)[:50]
    return [
        {
            "pointer": _pointer(fault["loc"], value, fault["type"] == "missing"),
            "detail": fault["msg"].removeprefix("Value error, "),
        }
        for fault in faults
    ]


def _pointer(location: Sequence[int | str], value: Any, missing: bool) -> str:
    """Where a fault is. Pydantic also names the branch of a union that was tried: that is no place in `value`."""
    parts = []
    for number, part in enumerate(location, 1):
        known = (
            part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        )
        if known:
            value = value[part]
        elif not (missing and number == len(location)):
            continue
        parts.append(f"/{_escape(str(part))}")
    return "".join(parts)


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


class Json(Response):
    """A whole answer with a body. Its length is known, so Werkzeug need not go over its headers as it leaves."""

    def __init__(self, body: bytes, status: int) -> None:
        super().__init__([body], status, content_type="application/json")
        add_headers(self, ("Content-Length", str(len(body))))

    def get_wsgi_headers(self, environ: Mapping[str, Any]) -> Headers:
        return self.headers


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON, by orjson."""
    response = Json(orjson.dumps(value), status)
    if headers:
        response.headers.update(headers)
    return response


def page_arguments(default: int = 20) -> tuple[int, str | None]:
    """`?limit=` (1 to 100) and `?cursor=`."""
    text = request.args.get("limit", str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= 100):
        raise Invalid(
            "`limit` is 1 to 100.", errors=[{"pointer": "/limit", "detail": "Send a number from 1 to 100."}]
        )
    cursor = request.args.get("cursor") or None
    if cursor is not None and len(cursor) > 128:
        raise Invalid(
            "`cursor` is not one of ours.", errors=[{"pointer": "/cursor", "detail": "Not a cursor."}]
        )
    return int(text), cursor


def page(rows: Sequence[dict[str, Any]], limit: int, key: str = "id") -> dict[str, Any]:
    """One page of the contract's shape, from `limit + 1` rows asked for."""
    more = len(rows) > limit
    shown = list(rows[:limit])
    return {"data": shown, "next_cursor": shown[-1][key] if more else None}


def choice_argument(name: str, allowed: Sequence[str]) -> str | None:
    """A query argument that must be one of `allowed`, or absent."""
    value = request.args.get(name)
    if value is not None and value not in allowed:
        raise Invalid(
            f"`{name}` is one of {', '.join(allowed)}.",
            errors=[{"pointer": f"/{name}", "detail": f"Send one of {', '.join(allowed)}."}],
        )
    return value
