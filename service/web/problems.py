"""RFC 9457 problem details for every error of every route, but for doors with a shape of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import orjson
from flask import Blueprint, Flask, Response
from werkzeug.exceptions import HTTPException

from service import errors
from service.errors import SlipwayError
from service.web.current import current

log = logging.getLogger("slipway.web")
_SHAPES = "slipway_error_shapes"  # of doors, by path

# Replacements for the errors of Flask and Werkzeug, by status.
_BY_STATUS: dict[int, type[SlipwayError]] = {
    400: errors.BadRequest,
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    406: errors.NotAcceptable,
    408: errors.RequestTimeout,
    409: errors.Conflict,
    413: errors.TooLarge,
    415: errors.UnsupportedMediaType,
    422: errors.Invalid,
    429: errors.RateLimited,
    503: errors.Unavailable,
}


def problem_body(error: SlipwayError) -> dict[str, Any]:
    """Build the problem document, with the path and id of the request."""
    request = current()
    return {**error.as_problem(), "instance": request.path, "request_id": request.id}


Answer = Callable[[SlipwayError], Response]


def error_shape(blueprint: Blueprint, path: str) -> Callable[[Answer], Answer]:
    """Answer errors of this path, and of all below it, as the decorated function does."""

    def register(answer: Answer) -> Answer:
        blueprint.record(lambda state: state.app.extensions.setdefault(_SHAPES, {}).update({path: answer}))
        return answer

    return register


def problem_response(error: SlipwayError) -> Response:
    request = current()
    for path, answer in request.extensions.get(_SHAPES, {}).items():
        if request.path == path or request.path.startswith(f"{path}/"):
            response: Response = answer(_of_api(error))
            return response
    return _problem(error)


def _of_api(error: SlipwayError) -> SlipwayError:
    """Name the path that is missing, so that its client does not take it for a thing that is."""
    request = current()
    if type(error) is errors.NotFound and request.url_rule is None:
        return errors.NotOffered(f"{request.method} {request.path[:100]} is not offered here.")
    return error


def _problem(error: SlipwayError) -> Response:
    response = Response(orjson.dumps(problem_body(error)), error.status, mimetype="application/problem+json")
    if error.retry_after is not None or error.status in (429, 503):
        response.headers["Retry-After"] = str(int(error.retry_after or 1))
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    if error.status == 426:
        response.headers.update({"Upgrade": "websocket", "Sec-WebSocket-Version": "13"})
    return response


def raw_problem(error: SlipwayError, path: str, own_id: str) -> bytes:
    """Build a raw HTTP/1.1 response for a request that never reached the application; only its path is quoted."""
    body = orjson.dumps({**error.as_problem(), "instance": path, "request_id": own_id})
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}",
        "Connection: close",
        "Content-Type: application/problem+json",
        f"Content-Length: {len(body)}",
        f"X-Request-ID: {own_id}",
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
    )
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def from_http(error: HTTPException) -> SlipwayError:
    """Convert an exception of the framework; its text is dropped, as it may quote the request."""
    if error.code and error.code < 500:
        return _BY_STATUS.get(error.code, errors.BadRequest)()
    return _BY_STATUS.get(error.code or 500, SlipwayError)()


def install(app: Flask) -> None:

    @app.errorhandler(SlipwayError)
    def slipway_error(error: SlipwayError) -> Response:
        return problem_response(error)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        response = problem_response(from_http(error))
        if error.code == 405 and getattr(error, "valid_methods", None):
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))  # type: ignore[attr-defined]
        return response

    @app.errorhandler(Exception)
    def unforeseen(error: Exception) -> Response:
        log.exception("unhandled_error", extra={"path": current().path, "kind": type(error).__name__})
        return problem_response(SlipwayError())
