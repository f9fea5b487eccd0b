"""What goes in and out over HTTP: bodies parsed into typed models, and what the OpenAPI page says of each route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from flask import Response, request
from pydantic import BaseModel, ConfigDict, ValidationError

from service.errors import FieldFault, Invalid, InvalidJson, SlipwayError, TooLarge, UnsupportedMediaType

M = TypeVar("M", bound=BaseModel)
V = TypeVar("V", bound=Callable[..., Any])
MAX_BODY = 1024 * 1024  # bytes; the contract's limit


class Body(BaseModel):
    """A request body: unknown fields are refused, so that a typing error is told and not ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


@dataclass(frozen=True, slots=True)
class Operation:
    """One route as the OpenAPI page tells it. `stream` names the media type of a streamed answer."""

    summary: str
    body: type[BaseModel] | None = None
    returns: Mapping[int, type[BaseModel] | None] = field(default_factory=lambda: {200: None})
    errors: Sequence[type[SlipwayError]] = ()
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tag: str = "Slipway"
    stream: str | None = None
    headers: Sequence[str] = ()


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
) -> Callable[[V], V]:
    """Describe a view for the OpenAPI page; the view itself is not changed."""

    def describe(view: V) -> V:
        operation = Operation(summary, body, returns or {200: None}, errors, query or {}, tag, stream, headers)
        view.__api__ = operation  # type: ignore[attr-defined]
        return view

    return describe


def raw_json() -> Any:
    """The request's JSON, whatever it is. Raises what the contract says for size, media type and syntax."""
    if request.content_length is not None and request.content_length > MAX_BODY:
        raise TooLarge(f"A body may have {MAX_BODY} bytes at most.")
    data = request.get_data(cache=True)
    if request.mimetype != "application/json" and not request.mimetype.endswith("+json"):
        raise UnsupportedMediaType("Send the body as application/json.")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"The body is not valid JSON (line {error.lineno}, column {error.colno}).") from None


def parse(model: type[M]) -> M:
    """The request's body as `model`. Raises `Invalid` with a pointer to every field that does not fit."""
    return validate(model, raw_json())


def validate(model: type[M], value: Any) -> M:
    """`value` as `model`, or `Invalid` with a pointer to every field that does not fit."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Invalid("The request does not fit; see `errors`.", errors=faults_of(error)) from None


def faults_of(error: ValidationError) -> list[FieldFault]:
    """A pydantic error as JSON pointers. The value itself is never repeated: it may be a secret."""
    return [
        {"pointer": "".join(f"/{_escape(str(part))}" for part in fault["loc"]), "detail": fault["msg"]}
        for fault in error.errors(include_url=False, include_input=False, include_context=False)[:50]
    ]


def _escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON, by orjson."""
    response = Response(orjson.dumps(value), status, mimetype="application/json")
    if headers:
        response.headers.update(headers)
    return response


def page_arguments() -> tuple[int, str | None]:
    """`?limit=` (1 to 100, 20 when not given) and `?cursor=`."""
    text = request.args.get("limit", "20")
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 100):
        raise Invalid("`limit` is 1 to 100.", errors=[{"pointer": "/limit", "detail": "Send a number from 1 to 100."}])
    cursor = request.args.get("cursor") or None
    if cursor is not None and len(cursor) > 128:
        raise Invalid("`cursor` is not one of ours.", errors=[{"pointer": "/cursor", "detail": "Not a cursor."}])
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


