"""Formats of the Messages API: errors, ids, times, server-sent events."""

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
    """Error answer; `headers` are added to it (retry-after)."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


def invalid(message: str) -> ApiError:
    """Create upstream's error for an invalid request (400)."""
    return ApiError(400, message)


def error_body(status: int, message: str, request_id: str) -> Json:
    """Build an error body."""
    kind = ERROR_TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}


def digest(value: object) -> str:
    """Hash a JSON value, independent of key order."""
    packed = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(packed, digest_size=9).hexdigest()


def next_id(prefix: str, seed: str = "") -> str:
    """Create a unique id. Only its tail differs between two answers to the same request."""
    return f"{prefix}_offline{seed}{next(_sequence):08x}"


def sse(event: str, data: Json) -> bytes:
    """Encode a server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (event.encode(), orjson.dumps(data))


def rfc3339(moment: float | None = None) -> str:
    """Format seconds since the epoch (default now) in upstream's time format."""
    return (
        datetime.fromtimestamp(time.time() if moment is None else moment, UTC)
        .isoformat()
        .replace("+00:00", "Z")
    )


def offline_name(model: str) -> str:
    """Prefix a model name with `offline-`, to mark the answer's origin."""
    return model if model.startswith("offline-") else f"offline-{model}"
