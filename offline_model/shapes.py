"""The shapes of the Messages API: errors, message ids, server-sent events."""

from __future__ import annotations

import hashlib
import itertools
import time
from datetime import UTC, datetime
from typing import Any

import orjson

Json = dict[str, Any]

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "api_error",
    529: "overloaded_error",
}
_sequence = itertools.count(1)


class ApiError(Exception):
    """An answer that is an error; `headers` go out with it (retry-after)."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


def invalid(message: str) -> ApiError:
    """What upstream answers to a request it cannot accept."""
    return ApiError(400, message)


def error_body(status: int, message: str, request_id: str) -> Json:
    """The one error shape."""
    kind = ERROR_TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def digest(value: object) -> str:
    """A short hash of a JSON value that does not depend on the order of its keys."""
    packed = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(packed, digest_size=9).hexdigest()


def next_id(prefix: str, seed: str = "") -> str:
    """An id nobody else has. Only its tail differs between two answers to the same request."""
    return f"{prefix}_offline{seed}{next(_sequence):08x}"


def sse(event: str, data: Json) -> bytes:
    """One server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), orjson.dumps(data))


def rfc3339(moment: float | None = None) -> str:
    """Seconds since the epoch (now by default) as upstream writes a time."""
    return (
        datetime.fromtimestamp(time.time() if moment is None else moment, UTC)
        .isoformat()
        .replace("+00:00", "Z")
    )


def offline_name(model: str) -> str:
    """The model name that says who answered."""
    return model if model.startswith("offline-") else f"offline-{model}"
