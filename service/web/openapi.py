"""OpenAPI: a decorator that describes a route, and `/openapi.json`, generated from all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flask import Blueprint, Flask, Response, current_app
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service import __version__
from service.errors import (
    Invalid,
    InvalidJson,
    RateLimited,
    SlipwayError,
    TooLarge,
    Unauthenticated,
    UnsupportedMediaType,
)
from service.types import Event
from service.web.admission import is_public, public
from service.web.schemas import Problem, json_response

V = TypeVar("V", bound=Callable[..., Any])
blueprint = Blueprint("openapi", __name__)
JSON = "application/json"
_PARAMETER = re.compile(r"<(?:\w+:)?(\w+)>")
BODY_ERRORS = (InvalidJson, TooLarge, UnsupportedMediaType, Invalid)  # errors of every route with a body
EVENTS = ", ".join(f"`{event}`" for event in Event)


@dataclass(frozen=True, slots=True)
class api:
    """Describe a view for the OpenAPI document; the view itself is not changed.

    `tag` is the blueprint's name where it is left out. `stream` is the media type of a streamed response, `events` are
    the names of its server-sent events, `also` are other media types. `error` is the shape of its errors, where they
    are no problem details, and `status` gives their statuses.
    """

    summary: str
    body: type[BaseModel] | None = None
    returns: Mapping[int, type[BaseModel] | None] = field(default_factory=lambda: {200: None})
    errors: Sequence[type[SlipwayError]] = ()
    query: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tag: str | None = None
    stream: str | None = None
    events: str = EVENTS
    headers: Sequence[str] = ()
    also: Sequence[str] = ()
    error: type[BaseModel] | None = None
    status: Callable[[type[SlipwayError]], int] = lambda error: error.status

    def __call__(self, view: V) -> V:
        view.__api__ = self  # type: ignore[attr-defined]
        return view


@blueprint.get("/openapi.json")
@api("OpenAPI document", tag="Documentation")
@public
def openapi() -> Response:
    known = current_app.extensions
    if "slipway_openapi" not in known:
        known["slipway_openapi"] = specification(current_app)
    return json_response(known["slipway_openapi"])


def specification(app: Flask) -> dict[str, Any]:
    """Build the OpenAPI 3.1 document of every route of `app`. Raises `KeyError` for a route without `api`."""
    routes = list(_routes(app))
    models = {model for _, _, operation, _ in routes for model in _models(operation)} | {Problem}
    keys, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)],
        ref_template="#/components/schemas/{model}",
    )
    names: dict[Any, str] = {model: schema["$ref"] for (model, _), schema in keys.items()}
    paths: dict[str, Any] = {}
    for path, method, operation, open_to_all in routes:
        paths.setdefault(path, {})[method] = _operation(path, method, operation, open_to_all, names)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Slipway", "version": __version__, "description": "Claude agents behind an API."},
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _routes(app: Flask) -> Iterator[tuple[str, str, api, bool]]:
    for rule in app.url_map.iter_rules():
        if rule.endpoint == "static":
            continue
        view = app.view_functions[rule.endpoint]
        operation = getattr(view, "__api__", None)
        if operation is None:
            raise KeyError(f"{rule.rule} has no @api(…)")
        operation = replace(operation, tag=operation.tag or rule.endpoint.partition(".")[0].capitalize())
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield _PARAMETER.sub(r"{\1}", rule.rule), method.lower(), operation, is_public(view)


def _models(operation: api) -> Iterator[type[BaseModel]]:
    if operation.body is not None:
        yield operation.body
    if operation.error is not None:
        yield operation.error
    yield from (model for model in operation.returns.values() if model is not None)


def _operation(
    path: str, method: str, operation: api, open_to_all: bool, names: dict[type[BaseModel], str]
) -> dict[str, Any]:
    described: dict[str, Any] = {
        "summary": operation.summary,
        "tags": [operation.tag],
        "operationId": "_".join([method, *re.findall(r"\w+", path)]),
        "responses": {
            **{
                str(status): _answer(operation, status, model, names)
                for status, model in operation.returns.items()
            },
            **_problems(operation, open_to_all, names),
        },
    }
    parameters = [_path_parameter(name) for name in re.findall(r"\{(\w+)\}", path)]
    parameters += [
        {"name": name, "in": "query", "schema": dict(schema)} for name, schema in operation.query.items()
    ]
    if "Idempotency-Replayed" in operation.headers:
        parameters.append(
            {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "maxLength": 255}}
        )
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        schema = {"$ref": names[operation.body]}
        described["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    if not open_to_all:
        described["security"] = [{"bearer": []}, {"apiKey": []}]
    return described


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _answer(
    operation: api, status: int, model: type[BaseModel] | None, names: dict[type[BaseModel], str]
) -> dict[str, Any]:
    described: dict[str, Any] = {"description": "OK" if status < 400 else "Not ready"}
    if model is not None:
        described["content"] = {JSON: {"schema": {"$ref": names[model]}}}
    if operation.stream is not None:
        text = {"type": "string"}
        if operation.stream == "text/event-stream":
            text["description"] = f"Server-sent events: {operation.events}."
        described.setdefault("content", {})[operation.stream] = {"schema": text}
    for media in operation.also:
        described.setdefault("content", {})[media] = {"schema": {"type": "string"}}
    if operation.headers:
        described["headers"] = {name: {"schema": {"type": "string"}} for name in operation.headers}
    return described


def _problems(operation: api, open_to_all: bool, names: dict[type[BaseModel], str]) -> dict[str, Any]:
    """Build the responses by status for every problem of a route, with the codes of each."""
    errors: list[type[SlipwayError]] = list(operation.errors) + (
        [] if open_to_all else [Unauthenticated, RateLimited]
    )
    if operation.body is not None:
        errors += BODY_ERRORS
    by_status: dict[str, list[str]] = {}
    for error in dict.fromkeys(errors):
        by_status.setdefault(str(operation.status(error)), []).append(f"`{error.code}`")
    media, shape = (
        ("application/problem+json", Problem) if operation.error is None else (JSON, operation.error)
    )
    content = {media: {"schema": {"$ref": names[shape]}}}
    described = {
        status: {"description": ", ".join(codes), "content": content} for status, codes in by_status.items()
    }
    return {**described, "default": {"description": "Other problems", "content": content}}
