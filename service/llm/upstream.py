"""Mapping of upstream failures to `SlipwayError`s with fixed messages: upstream text is never exposed."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import httpx2

from service.errors import (
    ModelError,
    ModelInterrupted,
    ModelKeyRefused,
    ModelRateLimited,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    Overloaded,
    PromptTooLong,
    SlipwayError,
)
from service.llm.wire import AnswerRefused

MAX_RETRY_AFTER = 3600.0
_SECONDS = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,12})?")
# The API has no error type for this: "prompt is too long: 210000 tokens > 200000 maximum", "input length and
# `max_tokens` exceed context limit: …", and at other providers "Input is too long for requested model".
_TOO_LONG = re.compile(r"\b(?:prompt|input) is too long\b|\bexceeds? (?:the )?context (?:limit|window)", re.I)
SPENT = frozenset(
    {"enforced_spend_limit_reached", "contract_spend_limit_reached"}
)  # a 429 that waiting does not resolve

# Error types of the Messages API, for errors inside a stream, whose HTTP status is 200.
STATUS_OF_TYPE = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Parse the requested wait, a number or an HTTP date, as seconds from 0 to 3600; None when absent."""
    for name, per_second in (("retry-after-ms", 1000), ("retry-after", 1)):
        given = headers.get(name, "")
        seconds = float(given) / per_second if _SECONDS.fullmatch(given) else _until(given)
        if seconds >= 0:  # False for NaN
            return min(seconds, MAX_RETRY_AFTER)
    return None


def _until(date: str) -> float:
    """Return the seconds until an HTTP date, 0 if past; NaN if it is no date."""
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, OverflowError, OSError):
        return math.nan


def refused(
    status: int,
    kind: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: object = None,
) -> SlipwayError:
    """Map an upstream error response: its `status`, the `type` and `error_code` of its body, its headers, the body."""
    kind = kind if kind in STATUS_OF_TYPE else None
    status = STATUS_OF_TYPE[kind] if kind else status
    if status == 413 or (status == 400 and _says_too_long(body)):
        return PromptTooLong()
    return _by_status(status, code, f" ({kind})" if kind else "", retry_after(headers or {}))


def _says_too_long(body: object) -> bool:
    error = body.get("error", body) if isinstance(body, Mapping) else None  # Bedrock has no object around it
    message = error.get("message") if isinstance(error, Mapping) else None
    return isinstance(message, str) and _TOO_LONG.search(message[:1_000]) is not None


def _by_status(status: int, code: str | None, named: str, wait: float | None) -> SlipwayError:
    match status:
        case 401 | 403:
            return ModelKeyRefused(f"The model's provider refuses this service's own key{named}")
        case 402:
            return ModelRejected(f"The model's provider refuses this service's account{named}")
        case 429 if code in SPENT:
            return ModelRejected("This service's spending limit at the model's provider is reached")
        case 429:
            return ModelRateLimited(retry_after=wait)
        case 408 | 504:
            return ModelTimeout()
    if status >= 500 or status == 409:
        return ModelUnavailable(f"The model answered with an error{named}", retry_after=wait)
    if status >= 400:
        return ModelRejected(f"The model refused the request{named}")
    return ModelError(f"The model answered with an unknown error{named}")


def unreached(cause: BaseException | None) -> SlipwayError:
    """Map a transport error raised before any answer began."""
    if isinstance(cause, httpx2.PoolTimeout):
        return Overloaded("Every connection to the model is taken")
    if isinstance(cause, httpx2.ReadTimeout | httpx2.WriteTimeout):
        return ModelTimeout()
    if isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
        return ModelUnavailable("No connection to the model")
    if isinstance(cause, AnswerRefused):
        return ModelError(str(cause))
    return ModelUnavailable("The model closed the connection without an answer")


def broken_off(error: httpx2.HTTPError) -> SlipwayError:
    """Map a transport error raised after the answer began."""
    if isinstance(error, httpx2.TimeoutException):
        return ModelTimeout("The model fell silent in the middle of its answer")
    if isinstance(error, AnswerRefused):
        return ModelError(str(error))
    return ModelInterrupted()
