"""Errors of the client: no answer, or a problem document (RFC 9457) as an exception, one class per status."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

RETRYABLE_STATUSES = frozenset({408, 429, 502, 503, 504})
RETRYABLE_CODES = frozenset({"session_busy"})
# Of a retryable status, but the same request would get the same answer.
FINAL_CODES = frozenset({"model_refused", "model_rejected", "model_key_refused", "price_unknown"})
MAX_DETAIL = 500  # characters of an answer that is no problem document


class SlipwayError(Exception):
    """Base of every error that this package raises."""


class BadArgument(SlipwayError, ValueError):
    """An argument cannot be sent, such as an id with a slash."""


class ConnectionFailed(SlipwayError):
    """No answer came: the server was not reached, or the connection broke."""


class TimedOut(ConnectionFailed):
    """No answer came in time."""


class WaitTimedOut(SlipwayError):
    """The run has not ended in the time that the caller waits."""


class UnexpectedAnswer(SlipwayError):
    """The answer is none of the contract: another service, or a version too old for this client."""


class APIError(SlipwayError):
    """Refused request or failed run. `code` is stable, `detail` is for people and may change.

    `errors` names each invalid field: `{"pointer": "/input", "detail": "…"}`. `retry_after`: seconds, if the server
    named any. `run_id`: the failed run's.
    """

    def __init__(self, status: int, body: Mapping[str, Any], retry_after: float | None = None) -> None:
        self.status = status
        self.body = body
        self.code = str(body.get("code", ""))
        self.title = str(body.get("title", ""))
        self.detail = str(body.get("detail", ""))
        self.errors: list[dict[str, str]] = body.get("errors") or []
        self.request_id = str(body.get("request_id", ""))
        self.run_id: str | None = body.get("run_id")
        self.retry_after = retry_after
        super().__init__(self._message())

    def _message(self) -> str:
        fields = "".join(f"; {fault.get('pointer', '')}: {fault.get('detail', '')}" for fault in self.errors)
        request = f" (request {self.request_id})" if self.request_id else ""
        return f"{self.status} {self.code or 'error'}: {self.detail or self.title}{fields}{request}"

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later, unchanged."""
        if self.code in FINAL_CODES:
            return False
        return self.status in RETRYABLE_STATUSES or self.code in RETRYABLE_CODES


class BadRequestError(APIError):
    """400: the request cannot be understood."""


class AuthenticationError(APIError):
    """401: not signed in, or no longer."""


class BudgetExceededError(APIError):
    """402: a spending cap is reached."""


class PermissionDeniedError(APIError):
    """403: this needs another role or scope."""


class NotFoundError(APIError):
    """404: absent, or of another user."""


class ConflictError(APIError):
    """409: not in the present state, such as a decision that was made already."""


class InvalidError(APIError):
    """422: a field does not fit; see `errors`."""


class RateLimitError(APIError):
    """429: too many requests; see `retry_after`."""


class ServerError(APIError):
    """5xx: the server, the agent or its model failed."""


class UnavailableError(ServerError):
    """503: not available at the moment; see `retry_after`."""


BY_STATUS: dict[int, type[APIError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    402: BudgetExceededError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: InvalidError,
    429: RateLimitError,
    503: UnavailableError,
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Parts of an error answer, apart from any HTTP library."""

    status: int
    body: Any  # parsed JSON, or None
    text: str
    retry_after: str | None = None


def error_of(refusal: Refusal) -> APIError:
    """Build the error of an answer that is not 2xx; one that is no problem document shows its first characters."""
    body = refusal.body if isinstance(refusal.body, dict) else {"detail": refusal.text[:MAX_DETAIL]}
    fallback = ServerError if refusal.status >= 500 else APIError
    return BY_STATUS.get(refusal.status, fallback)(refusal.status, body, seconds_of(refusal.retry_after))


def seconds_of(header: str | None) -> float | None:
    """Parse `Retry-After` in seconds; None for anything else, such as a date, which Slipway never sends."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None
