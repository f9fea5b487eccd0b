"""Errors of the Messages API, in Anthropic's shape and with its statuses."""

from __future__ import annotations

from typing import Any, Literal

import orjson
from flask import Response

from service import errors
from service.errors import SlipwayError
from service.web.current import current
from service.web.schemas import Shape

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUS: dict[type[SlipwayError], int] = {  # where it differs from the problem's; the first that fits
    errors.PriceUnknown: 404,
    errors.RunLimit: 403,
    errors.RunCancelled: 401,
    errors.ModelKeyRefused: 500,
    errors.ModelRejected: 400,
    errors.Unavailable: 529,
    errors.ModelUnavailable: 529,
    errors.UnsupportedMediaType: 400,
    errors.Invalid: 400,
    errors.Conflict: 400,
}
MAY_FAIL = (
    errors.PriceUnknown,
    errors.BudgetExceeded,
    errors.RunLimit,
    errors.Overloaded,
    errors.DatabaseUnavailable,
    errors.ModelRejected,
    errors.ModelUnavailable,
    errors.ModelTimeout,
    errors.ModelError,
)
_FINAL = (errors.RunLimit, errors.ModelKeyRefused, errors.BudgetExceeded)  # a repetition brings the same


class ErrorTold(Shape):
    type: str
    message: str
    code: str


class ErrorAnswer(Shape):
    """Error in the Messages API's shape."""

    type: Literal["error"]
    error: ErrorTold
    request_id: str


def status_of(kind: type[SlipwayError]) -> int:
    """Return the status of an error at this door."""
    return next((status for other, status in _STATUS.items() if issubclass(kind, other)), kind.status)


def refusal(error: SlipwayError) -> Response:
    """Answer with the error in Anthropic's shape."""
    response = Response(orjson.dumps(error_body(error)), status_of(type(error)), mimetype="application/json")
    response.headers["request-id"] = current().id
    if error.retry_after is not None or response.status_code in (429, 529):
        response.headers["Retry-After"] = str(int(error.retry_after or 1))
    if isinstance(error, _FINAL):
        response.headers["x-should-retry"] = "false"
    return response


def error_body(error: SlipwayError) -> dict[str, Any]:
    """Build the error document."""
    faults = "; ".join(f"{one['pointer']}: {one['detail']}" for one in error.errors)
    kind = _TYPES.get(status_of(type(error)), "api_error")
    told = {"type": kind, "message": faults or error.detail, "code": error.code}
    return {"type": "error", "error": told, "request_id": current().id}
