"""What goes in and out over HTTP: bodies parsed into typed models, and what the OpenAPI page says of each route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from flask import Response, current_app, request
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from service.agents.suggest import did_you_mean
from service.errors import FieldFault, Invalid, NotFound, SlipwayError
from service.text import exact_json
from service.text.numerals import whole_number
from service.web.body import AS_TEXT, MAX_BODY, fault, pointer, raw_json

M = TypeVar("M", bound=BaseModel)
V = TypeVar("V", bound=Callable[..., Any])
LONGEST_NAME = 128  # characters of an id, a name or a scope in a path
MOST_FIELDS = 64  # of a body; those it does not know become errors
MOST_FAULTS = 50  # told in one answer
MOST_LIST = 1000 * 1024  # bytes of a list's items; with what is around them an answer has 1 MiB at most
LONGEST_FIELD = (
    96 * 1024
)  # bytes of a field of an item that is too large for a list; of a text, six a character


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
    if "\x00" in request.path:
        raise NotFound()
    for name in (request.view_args or {}).values():
        if len(str(name)) > LONGEST_NAME:
            raise NotFound()
    if b"%00" in request.query_string or b"\x00" in request.query_string:
        raise Invalid("The query must not contain a NUL character.")


def parse(model: type[M], *, most: int = MAX_BODY) -> M:
    """The request's body as `model`. Raises `TooLarge`, or `Invalid` with a pointer to each field that does not fit."""
    return validate(model, raw_json(most))


def validate(model: type[M], value: Any) -> M:
    """`value` as `model`, or `Invalid` with a pointer to every field that does not fit.

    It goes by way of JSON: pydantic is then strict about the types JSON has, and still reads a date from a string.
    """
    if isinstance(value, dict) and len(value) > MOST_FIELDS:
        raise fault("", f"must not have more than {MOST_FIELDS} fields")
    try:
        return model.model_validate_json(exact_json.dumps(_with_texts(value)))
    except ValidationError as error:
        raise Invalid("The request does not fit; see `errors`.", errors=faults_of(error, value)) from None


def _with_texts(value: Any) -> Any:
    """The body with JSON text in place of what is kept as that."""
    if not isinstance(value, dict):
        return value
    texts = {name: exact_json.dumps(value[name]).decode() for name in AS_TEXT if value.get(name) is not None}
    return {**value, **texts} if texts else value


def faults_of(error: ValidationError, value: Any) -> list[FieldFault]:
    """A pydantic error as JSON pointers into `value`, which is never repeated itself: it may be a secret."""
    return located(error.errors(include_url=False, include_input=False, include_context=False), value)


def located(details: Sequence[ErrorDetails], value: Any, within: str = "") -> list[FieldFault]:
    """Turn what pydantic found wrong with `value` into JSON pointers; `within` is the pointer to `value` itself."""
    return [
        {
            "pointer": within + _pointer(fault["loc"], value, fault["type"] == "missing"),
            "detail": fault["msg"].removeprefix("Value error, "),
        }
        for fault in details[:MOST_FAULTS]
    ]


def _pointer(location: Sequence[int | str], value: Any, missing: bool) -> str:
    """Where a fault is. Pydantic also names the branch of a union that was tried: that is no place in `value`."""
    parts: list[int | str] = []
    for number, part in enumerate(location, 1):
        known = (
            part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        )
        if known:
            value = value[part]
        elif not (missing and number == len(location)):
            continue
        parts.append(part)
    return pointer(parts)


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`value` as JSON, by orjson."""
    return Response(orjson.dumps(value), status, headers, mimetype="application/json")


def page_arguments(default: int = 20, longest_cursor: int = 128) -> tuple[int, str | None]:
    """`?limit=` (1 to 100; `default`, which may be more, where it is not given) and `?cursor=`.

    Raises `Invalid` for these, and for a parameter that the route does not have: a list that is not filtered as it
    was meant looks as if it were.
    """
    _refuse_other_parameters()
    text = request.args.get("limit")
    limit = default if text is None else whole_number(text)
    if limit is None or (text is not None and not 1 <= limit <= 100):
        raise Invalid(
            "`limit` is 1 to 100.", errors=[{"pointer": "/limit", "detail": "Send a number from 1 to 100."}]
        )
    cursor = request.args.get("cursor") or None
    if cursor is not None and len(cursor) > longest_cursor:
        raise Invalid(
            "`cursor` is not one of ours.", errors=[{"pointer": "/cursor", "detail": "Not a cursor."}]
        )
    return limit, cursor


def _refuse_other_parameters() -> None:
    """Raise `Invalid` for names in the query that are not in the route's description (`api`), or are there twice."""
    described = getattr(current_app.view_functions.get(request.endpoint or ""), "__api__", None)
    if described is None:
        return
    known = described.query
    unknown = [name for name in request.args if name not in known][:MOST_FAULTS]
    errors: list[FieldFault] = [
        {"pointer": pointer([name]), "detail": f"There is no such parameter{did_you_mean(name, known)}"}
        for name in unknown
    ]
    errors += [
        {"pointer": pointer([name]), "detail": "Once at most."}
        for name in known
        if len(request.args.getlist(name)) > 1
    ]
    if errors:
        raise Invalid("The query does not fit; see `errors`.", errors=errors)


def page(
    rows: Sequence[dict[str, Any]], limit: int, key: str = "id", room: int = MOST_LIST
) -> dict[str, Any]:
    """One page of the contract's shape, from `limit + 1` rows asked for: as many of them as fit `room` bytes.

    A page may therefore be shorter than `limit`; `next_cursor` leads on. A row that is too large even alone is cut.
    """
    shown: list[dict[str, Any]] = []
    for row in rows[:limit]:
        size = len(orjson.dumps(row)) + 1
        if size > room and shown:
            break
        shown.append(row if size <= room else _cut(row))
        room -= size
    more = len(rows) > len(shown)
    return {"data": shown, "next_cursor": shown[-1][key] if more else None}


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what is too large in it; `truncated` names those fields."""
    large = [name for name, value in row.items() if len(orjson.dumps(value)) > LONGEST_FIELD]
    small = {name: _cut_value(row[name]) for name in large}
    return {**row, **small, "truncated": large}


def _cut_value(value: Any) -> Any:
    return value[: LONGEST_FIELD // 6] if isinstance(value, str) else type(value)()


def choice_argument(name: str, allowed: Sequence[str]) -> str | None:
    """A query argument that must be one of `allowed`, or absent."""
    value = request.args.get(name)
    if value is not None and value not in allowed:
        raise Invalid(
            f"`{name}` is one of {', '.join(allowed)}.",
            errors=[{"pointer": f"/{name}", "detail": f"Send one of {', '.join(allowed)}."}],
        )
    return value
