"""Errors in Anthropic's shape, with the statuses that its SDKs expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import orjson
from flask import Response

from service import errors
from service.error_table import error_class, is_retryable
from service.errors import FieldFault, SlipwayError
from service.web.current import current
from service.web.schemas import Shape, json_response

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUS: dict[type[SlipwayError], int] = {  # where it differs from the problem's; the first that fits
    errors.PriceUnknown: 404,
    errors.RunLimit: 403,
    errors.ModelKeyRefused: 500,
    errors.ModelRejected: 400,
    errors.Unavailable: 529,
    errors.ModelUnavailable: 529,
    errors.UnsupportedMediaType: 400,
    errors.GuardrailRefused: 400,
    errors.Invalid: 400,
    errors.GuardrailRefused: 400,
    errors.Conflict: 400,
}
MAY_FAIL = (
    errors.PriceUnknown,
    errors.BudgetExceeded,
    errors.RunLimit,
    errors.Overloaded,
    errors.DatabaseUnavailable,
    errors.GuardrailRefused,
    errors.ModelRejected,
    errors.ModelUnavailable,
    errors.ModelTimeout,
    errors.ModelError,
)


class ErrorTold(Shape):
    type: str
    message: str
    code: str


class ErrorAnswer(Shape):
    """Error in the Messages API's shape."""

    type: Literal["error"]
    error: ErrorTold
    request_id: str


def error_response(error: SlipwayError) -> Response:
    """Answer with an error in Anthropic's shape."""
    status = status_of(type(error))
    body = _body(status, error.detail, error.code, current().id, error.errors)
    response = json_response(body, status, _headers(type(error), error.retry_after))
    response.headers["request-id"] = current().id
    return response


def error_body(error: SlipwayError, request_id: str) -> dict[str, Any]:
    """Build the body of an error, for a stream that has begun."""
    return _body(status_of(type(error)), error.detail, error.code, request_id, error.errors)


def problem_of_run(problem: Mapping[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Return body, status and headers for the problem of a failed run, of any thread."""
    kind = error_class(problem["code"])
    return error_of_run(problem), status_of(kind), _headers(kind, problem.get("retry_after"))


def error_event(body: Mapping[str, Any]) -> bytes:
    """Encode the body of an error as the last event of a stream."""
    return b"event: error\ndata: %b\n\n" % orjson.dumps(body)


def error_of_run(problem: Mapping[str, Any]) -> dict[str, Any]:
    """Build the body for the problem of a failed run, in any thread."""
    status = status_of(error_class(problem["code"]))
    faults = problem.get("errors", ())
    return _body(status, problem["detail"], problem["code"], problem["request_id"], faults)


def broken(message: str, code: str, request_id: str) -> dict[str, Any]:
    """Build the body of an error that ends a stream for a reason of the stream's own."""
    return _body(500, message, code, request_id)


def status_of(kind: type[SlipwayError]) -> int:
    """Return the status of an error at this door."""
    return next((status for known, status in _STATUS.items() if issubclass(kind, known)), kind.status)


def _headers(kind: type[SlipwayError], retry_after: float | None) -> dict[str, str]:
    """Return headers by which the SDKs decide about another try."""
    status, headers = status_of(kind), {}
    if retry_after is not None or status in (429, 529):
        headers["Retry-After"] = str(int(retry_after or 1))
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if not is_retryable(kind):
        headers["x-should-retry"] = "false"
    return headers


def _body(
    status: int, detail: str, code: str, request_id: str, faults: Sequence[FieldFault] = ()
) -> dict[str, Any]:
    told = "; ".join(f"{one['pointer'] or 'body'}: {one['detail']}" for one in faults)
    error = {"type": _TYPES.get(status, "api_error"), "message": told or detail, "code": code}
    return {"type": "error", "error": error, "request_id": request_id}
