"""Errors in OpenAI's shape, `{"error": {"message", "type", "param", "code"}}`, with the statuses its SDKs expect."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from flask import Response

from service import errors
from service.error_table import error_class, is_retryable
from service.errors import FieldFault, SlipwayError
from service.web.current import current
from service.web.schemas import Shape, json_response

_PART = re.compile(r"0|[1-9][0-9]*")  # of a pointer: a place in a list


class OpenAIError(Shape):
    """Error in OpenAI's shape; `error` has `message`, `type`, `param` and `code`."""

    error: dict[str, Any]


class Mapped(NamedTuple):
    """Error as OpenAI's SDKs expect it. An empty `code`: Slipway's own."""

    status: int
    type: str
    code: str = ""


_SHAPES: dict[type[SlipwayError], Mapped] = {  # the first that fits
    errors.BudgetExceeded: Mapped(429, "insufficient_quota", "insufficient_quota"),
    errors.Unauthenticated: Mapped(401, "invalid_request_error", "invalid_api_key"),
    errors.NotOffered: Mapped(404, "invalid_request_error", "unknown_url"),
    errors.ResponseNotFound: Mapped(404, "invalid_request_error"),
    errors.NotFound: Mapped(404, "invalid_request_error", "model_not_found"),
    errors.PromptTooLong: Mapped(400, "invalid_request_error", "context_length_exceeded"),
    errors.ModelRejected: Mapped(400, "invalid_request_error"),
    errors.IdempotencyMismatch: Mapped(422, "idempotency_error"),
    errors.GuardrailRefused: Mapped(400, "invalid_request_error"),
    errors.Invalid: Mapped(400, "invalid_request_error"),
    errors.RateLimited: Mapped(429, "requests", "rate_limit_exceeded"),
}


def error_response(error: SlipwayError) -> Response:
    """Answer with an error in OpenAI's shape."""
    kind, shape = type(error), _shape_of(type(error))
    return json_response(
        error_body(error, current().id), shape.status, _headers(kind, shape, error.retry_after)
    )


def error_body(error: SlipwayError, request_id: str) -> dict[str, Any]:
    """Return the body of an error, which is also the last event of a stream that it ends."""
    return _body(_shape_of(type(error)), error.detail, error.code, request_id, error.errors)


def problem_of_run(problem: Mapping[str, Any]) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Return body, status and headers for the problem of a failed run, of any thread."""
    kind = error_class(problem["code"])
    shape = _shape_of(kind)
    body = _body(shape, problem["detail"], problem["code"], problem["request_id"], problem.get("errors", ()))
    return body, shape.status, _headers(kind, shape, problem.get("retry_after"))


def error_event(body: Mapping[str, Any]) -> bytes:
    """Encode the body of an error as the last event of a stream."""
    return b"data: %b\n\n" % orjson.dumps(body)


def broken(message: str, code: str, request_id: str) -> dict[str, Any]:
    """Build the body of an error that ends a stream for a reason of the stream's own."""
    return _body(Mapped(500, "server_error"), message, code, request_id)


def status_of(kind: type[SlipwayError]) -> int:
    """Return the status of an error in this dialect."""
    return _shape_of(kind).status


def _shape_of(kind: type[SlipwayError]) -> Mapped:
    found = next((shape for known, shape in _SHAPES.items() if issubclass(kind, known)), None)
    return found or Mapped(kind.status, "invalid_request_error" if kind.status < 500 else "server_error")


def _headers(kind: type[SlipwayError], shape: Mapped, retry_after: float | None) -> dict[str, str]:
    headers = {}
    if retry_after is not None or shape.status in (429, 503):
        headers["Retry-After"] = str(int(retry_after or 1))
    if shape.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if not is_retryable(kind):
        headers["x-should-retry"] = "false"
    return headers


def _body(
    shape: Mapped, detail: str, code: str, request_id: str, faults: Sequence[FieldFault] = ()
) -> dict[str, Any]:
    told = "; ".join(f"{_param(one['pointer']) or 'body'}: {one['detail']}" for one in faults)
    return {
        "error": {
            "message": told or detail,
            "type": shape.type,
            "param": _param(faults[0]["pointer"]) if faults else None,
            "code": shape.code or code,
            "request_id": request_id,
        }
    }


def _param(pointer: str) -> str | None:
    """Convert a JSON pointer to OpenAI's form, such as `messages[0].role`; None for the whole body."""
    path = ""
    for part in pointer.split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        path += f"[{part}]" if _PART.fullmatch(part) else f".{name}" if name else '[""]'
    return path.removeprefix(".") or None
