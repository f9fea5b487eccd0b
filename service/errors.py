"""Error tree: every failure visible to a client has a class, a stable code and an HTTP status.

`detail` is public and sent verbatim, so it never contains a secret, a stack trace or an upstream's or database's
own message.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar, TypedDict


class FieldFault(TypedDict):
    """Validation error of one field: its JSON pointer (RFC 6901) and a message."""

    pointer: str
    detail: str


class SlipwayError(Exception):
    """Root of the tree. `detail` is for the caller; `retry_after` is in seconds."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Something went wrong on our side"

    def __init__(
        self,
        detail: str | None = None,
        *,
        retry_after: float | None = None,
        errors: Sequence[FieldFault] = (),
        extra: dict[str, object] | None = None,
    ) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))
        self.errors, self.extra = tuple(errors), extra or {}

    def as_problem(self) -> dict[str, object]:
        """Return the RFC 9457 problem members that do not depend on the request."""
        problem: dict[str, object] = {
            "type": f"/docs/errors#{self.code}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            problem["errors"] = list(self.errors)
        return {**problem, **self.extra}


class BadRequest(SlipwayError):
    status, code, title = 400, "bad_request", "The request cannot be understood"


class InvalidJson(BadRequest):
    code, title = "invalid_json", "The body is not valid JSON"


class Unauthenticated(SlipwayError):
    status, code, title = 401, "unauthenticated", "Sign in first"


class InvalidCredentials(Unauthenticated):
    code, title = "invalid_credentials", "Unknown user or wrong password"


class InvalidToken(Unauthenticated):
    code, title = "invalid_token", "The token is not valid"
    expired = False  # one that was valid until its end is not counted as made up


class BudgetExceeded(SlipwayError):
    status, code, title = 402, "budget_exceeded", "A spending cap is reached"
    needed: int | None = None  # nano-dollars under caps, for which a run can wait


class Forbidden(SlipwayError):
    status, code, title = 403, "forbidden", "This needs another role or scope"


class OwnApproval(Forbidden):
    """Decision about a call of one's own run, where `APPROVAL_BY_OTHERS` is on."""

    code, title = "own_approval", "Another person has to decide about this call"


class CrossSite(Forbidden):
    code, title = "cross_site", "Only the service's own web page may send this"


class UnknownIdentity(Forbidden):
    """Genuine identity of the issuer that may not use this service."""

    code, title = "unknown_identity", "This identity has no user here"


class NotFound(SlipwayError):
    status, code, title = 404, "not_found", "There is nothing here"


class NotOffered(NotFound):
    """Path of another API, in whose dialect the answer is."""

    code, title = "not_offered", "This part of that API is not offered here"


class ResponseNotFound(NotFound):
    code, title = "response_not_found", "There is no such response"


class MethodNotAllowed(SlipwayError):
    status, code, title = 405, "method_not_allowed", "This path does not take that method"


class NotAcceptable(SlipwayError):
    status, code, title = 406, "not_acceptable", "None of the accepted media types can be answered"


class RequestTimeout(SlipwayError):
    status, code, title = 408, "request_timeout", "The request did not arrive in time"


class Conflict(SlipwayError):
    status, code, title = 409, "conflict", "That does not fit the present state"


class SessionBusy(Conflict):
    code, title = "session_busy", "Another turn of this session is running"


class AlreadyDecided(Conflict):
    code, title = "already_decided", "This approval is decided already"


class DigestMismatch(Conflict):
    code, title = "digest_mismatch", "The digest is of another call than that of this approval"


class ToolGone(Conflict):
    code, title = "tool_gone", "The tool that this approval is about is not there any more"


class TooMany(Conflict):
    """Quota of objects per user reached; deleting one makes room."""

    code, title = "too_many", "You have as many of these as a user may have"


class RunFinished(Conflict):
    code, title = "run_finished", "This run has ended already"


class RunDeleted(Conflict):
    """Run of an earlier request with the same idempotency key: deleted, itself or with its session."""

    code, title = "run_deleted", "What this Idempotency-Key started was deleted; use another key"


class NotForkable(Conflict):
    code, title = "not_forkable", "This run cannot be forked"


class TooLarge(SlipwayError):
    status, code, title = 413, "too_large", "The body is too large"


class UriTooLong(SlipwayError):
    status, code, title = 414, "uri_too_long", "The address is too long"


class HeadersTooLarge(SlipwayError):
    status, code, title = 431, "headers_too_large", "The headers are too large"


class UpgradeRequired(SlipwayError):
    status, code, title = 426, "upgrade_required", "This path speaks WebSocket"


class UnsupportedMediaType(SlipwayError):
    status, code, title = 415, "unsupported_media_type", "Send application/json"


class Invalid(SlipwayError):
    status, code, title = 422, "invalid", "A field does not fit"


class IdempotencyMismatch(Invalid):
    code, title = "idempotency_mismatch", "This Idempotency-Key was used with another body"


class PreviousResponseNotFound(Invalid):
    """Response that a new one goes on from: not kept, deleted, or of someone else."""

    code, title = "previous_response_not_found", "There is no such response to go on from"


def fault(pointer: str, detail: str, message: str = "The request does not fit; see `errors`.") -> Invalid:
    return Invalid(message, errors=[{"pointer": pointer, "detail": detail}])


class RateLimited(SlipwayError):
    status, code, title = 429, "rate_limited", "Too many requests"


class ModelError(SlipwayError):
    """Failed model call; 502 unless a subclass has another status."""

    status, code, title = 502, "model_error", "The model gave no usable answer"


class ModelUnavailable(ModelError):
    status, code, title = 503, "model_unavailable", "The model cannot be reached"


class ModelRateLimited(ModelUnavailable):
    code, title = "model_rate_limited", "The model is rate limited"


class ModelKeyRefused(ModelUnavailable):
    """Provider refused the service's own API key: not retried, as only an operator can fix it."""

    code, title = "model_key_refused", "The model refuses this service's key"


class ModelTimeout(ModelError):
    status, code, title = 504, "model_timeout", "The model did not answer in time"


class ModelInterrupted(ModelError):
    code, title = "model_interrupted", "The model's answer broke off"


class ModelRejected(ModelError):
    """Model rejected the request (400 to 422): not retried."""

    code, title = "model_rejected", "The model refused the request"


class PromptTooLong(ModelRejected):
    """Prompt that does not fit the model's context window, even compacted."""

    status, code, title = 422, "prompt_too_long", "The prompt does not fit the model's context window"


class ModelRefused(ModelRejected):
    code, title = "model_refused", "The model declined to answer"


class OutputInvalid(ModelError):
    """Answer that does not fit its `output_schema`, also after one repair; the run keeps it as `output`."""

    code, title = "output_invalid", "The model's answer does not fit the schema"


class GuardrailRefused(SlipwayError):
    """Text that a guardrail refuses: what was asked, what a tool has found, or the answer. Nothing of it is told."""

    status, code, title = 422, "guardrail_refused", "A guardrail refused this"


def guardrail_refused(where: str, kind: str) -> GuardrailRefused:
    """Make the refusal of a kind of text at a place: `input`, `tool` or `output`."""
    about = {"input": "what was asked", "tool": "what a tool returned", "output": "the answer"}[where]
    return GuardrailRefused(f"A guardrail refused {about}: {kind}.", extra={"where": where, "kind": kind})


class PriceUnknown(SlipwayError):
    status, code, title = 503, "price_unknown", "The price of this model is not known"


class RunTimeout(SlipwayError):
    status, code, title = 504, "run_timeout", "The run took longer than it may"


class RunLimit(SlipwayError):
    status, code, title = 500, "run_limit", "The run used all the steps it may take"


class RunCancelled(SlipwayError):
    status, code, title = 409, "run_cancelled", "The run was cancelled"


class WorkerLost(SlipwayError):
    status, code, title = 500, "worker_lost", "The run lost its worker too often"


class AgentFault(SlipwayError):
    status, code, title = 500, "agent_fault", "The agent failed"


class RemoteFailed(SlipwayError):
    status, code, title = 502, "remote_failed", "The remote agent gave no usable answer"


class Unavailable(SlipwayError):
    status, code, title = 503, "unavailable", "Not available at the moment"

    def __init__(self, detail: str | None = None, *, retry_after: float | None = 1.0, **kw: object) -> None:
        super().__init__(detail, retry_after=retry_after, **kw)  # type: ignore[arg-type]


class Overloaded(Unavailable):
    code, title = "overloaded", "Every place is taken"


class AgentStopped(Unavailable):
    """The kill switch is on: new runs are refused, those under way wait."""

    code, title = "agent_stopped", "This agent is stopped"

    def __init__(self, detail: str | None = None, *, retry_after: float | None = 30.0, **kw: object) -> None:
        super().__init__(detail, retry_after=retry_after, **kw)


class DatabaseUnavailable(Unavailable):
    code, title = "database_unavailable", "The database cannot be reached"


class KeyringUnavailable(DatabaseUnavailable):
    code, title = "keyring_unavailable", "The keys of this data cannot be read"


class GuardrailUnavailable(Unavailable):
    """Judge of a guardrail without a verdict: nothing passes that it was to judge."""

    code, title = "guardrail_unavailable", "A guardrail cannot judge at the moment"


class IdentityUnavailable(Unavailable):
    code, title = "identity_unavailable", "The identity provider cannot be reached"


class RemoteUnavailable(Unavailable):
    code, title = "remote_unavailable", "The remote agent cannot be reached"


class GatewayTimeout(SlipwayError):
    """Sent by nginx when a replica does not answer in time."""

    status, code, title = 504, "gateway_timeout", "No answer in time"
