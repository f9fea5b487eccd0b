"""Schemas of bodies and answers: base classes, and what several routes share."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import orjson
from flask import Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from werkzeug.datastructures import Headers

from service.auth.rates import is_rate
from service.store.cap_scopes import DEFAULT_NAME
from service.text import exact_json
from service.text.moments import parse_end
from service.types import RunStatus, public_fields
from service.usage.caps import Standing, nano_of

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

T = TypeVar("T")
METADATA_BYTES = 16 * 1024  # as compact JSON
METADATA_MEMBERS = 64
METADATA_DEPTH = 8  # levels of objects and lists, itself the first


class Body(BaseModel):
    """Base of request bodies: unknown fields and wrong types are errors, so that no typing error is ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Shape(BaseModel):
    """Base of response schemas, for OpenAPI only: responses are built as dictionaries, for speed."""

    model_config = ConfigDict(extra="allow")


class Page(Shape, Generic[T]):
    data: list[T]
    next_cursor: str | None


class Problem(Shape):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str
    request_id: str
    errors: list[dict[str, str]] | None = None


class JsonResponse(Response):
    """JSON response with complete headers: its length, and addresses in ASCII."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Return the headers to send, which Werkzeug would copy and complete."""
        return self.headers


def json_response(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> JsonResponse:
    return JsonResponse(orjson.dumps(value), status, headers, content_type="application/json")


def no_nul(text: str) -> str:
    """Validate a field that is kept as text: PostgreSQL has no NUL character."""
    if "\x00" in text:
        raise ValueError("must not contain a NUL character")
    return text


def _not_blank(text: str) -> str:
    """Validate a text for the model, which refuses white space alone."""
    if all(unicodedata.category(letter)[0] in "ZC" for letter in text):
        raise ValueError("must contain more than white space")
    return text


ModelText = Annotated[
    str, Field(min_length=1, max_length=400_000), AfterValidator(no_nul), AfterValidator(_not_blank)
]


def _is_object(text: str) -> str:
    if not text.startswith("{"):
        raise ValueError("must be an object")
    return text


def _within_limits(text: str) -> str:
    """Check `metadata` against its limits: bytes, members, depth. Raises `ValueError`."""
    if len(text.encode()) > METADATA_BYTES:
        raise ValueError(f"must not have more than {METADATA_BYTES} bytes as JSON")
    value = exact_json.loads(text.encode())
    if len(value) > METADATA_MEMBERS:
        raise ValueError(f"must not have more than {METADATA_MEMBERS} members")
    if _depth(value) > METADATA_DEPTH:
        raise ValueError(f"must not be nested deeper than {METADATA_DEPTH} levels")
    return text


def _depth(value: Any) -> int:
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


def _amount(text: str) -> str:
    nano_of(text)
    return text


def _rate(text: str) -> str:
    if not is_rate(text):
        raise ValueError("must be a rate such as 60/minute")
    return text


def _end_user(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be printable characters")
    if text == DEFAULT_NAME:
        raise ValueError("must not be `*`, which stands for every end user")
    return text


Amount = Annotated[str, Field(max_length=24), AfterValidator(_amount)]  # dollars
EndUser = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_end_user)]
# End of an override, in ms; to a client it is a time.
Until = Annotated[int, BeforeValidator(parse_end), WithJsonSchema({"type": "string", "format": "date-time"})]
RateText = Annotated[str, Field(max_length=64), AfterValidator(_rate)]  # such as `60/minute`


# JSON text, see `service.web.body.AS_TEXT`; to a client it is an object.
ContextObject = Annotated[str, AfterValidator(_is_object), WithJsonSchema({"type": "object"})]
Metadata = Annotated[
    str,
    AfterValidator(_is_object),
    AfterValidator(_within_limits),
    WithJsonSchema({"type": "object", "maxProperties": METADATA_MEMBERS}),
]


class UsageShape(Shape):
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cost_usd: str
    usage_source: Literal["reported", "estimated", "worst"] = "reported"


class ToolShape(Shape):
    """Tool call of a run; `unknown`: the run ended before its outcome was known, and it may have had its effect."""

    name: str
    ok: bool
    ms: int
    unknown: bool | None = None


class SourceShape(Shape):
    title: str
    uri: str
    quote: str


class RunItem(Shape):
    """Run in a list, without request and result; `input` is cut at 200 characters.

    `input`, `steps`, `model` and `stop_reason` are null for runs of old versions of Slipway.
    """

    run_id: str
    session_id: str | None
    agent: str
    agent_version: str
    user_id: str
    door: str
    status: RunStatus
    input: str | None
    stop_reason: str | None
    model: str | None
    tier: str | None
    steps: int | None
    usage: UsageShape
    cache: Literal["hit", "near", "stale", "coalesced", "miss", "bypass"]
    latency_ms: int | None
    created_at: str
    finished_at: str | None
    error: dict[str, Any] | None = None


class RunResult(RunItem):
    """Result of a run that has ended, or waits for decisions on `approvals`, or for money, as `waits_for` says."""

    input: str
    output: str
    structured: Any
    steps: int
    tools: list[ToolShape]
    sources: list[SourceShape]
    repeated_calls: list[str] | None = None
    stop_sequence: str | None = None
    client_calls: list[dict[str, Any]] | None = None
    approvals: list[str] | None = None
    waits_for: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class FeedbackShape(Shape):
    """Feedback of a run's user: 1 for good, -1 for bad."""

    score: int
    comment: str | None
    created_at: str
    updated_at: str


def feedback_of(row: Mapping[str, Any]) -> dict[str, Any]:
    return public_fields(row, "score comment created_at updated_at")


class Queued(Shape):
    run_id: str
    status: RunStatus


class AgentView(Shape):
    id: str
    description: str
    pattern: str
    version: str
    models: list[str]
    tools: list[str]
    approvals: list[str]
    limits: dict[str, Any]
    examples: list[str]
    output_schema: dict[str, Any] | None


class AgentList(Page[AgentView]): ...


class AgentStopView(Shape):
    agent: str
    stopped: bool
    reason: str | None
    stopped_by: str | None
    stopped_at: str | None


class KeyView(Shape):
    id: str
    name: str
    prefix: str
    scopes: list[str]
    created_at: str
    expires_at: str | None
    last_used_at: str | None
    previous_expires_at: str | None
    limit_runs: str | None
    limit_runs_until: str | None
    limit_runs_after: str | None


class KeyPage(Page[KeyView]): ...


class BudgetView(Shape):
    """Cap in its current window; the amount of a lifted cap is null. `after_usd`: the cap from `until` on, or none."""

    scope: str
    period: str
    amount_usd: str | None
    spent_usd: str
    reserved_usd: str
    left_usd: str | None
    renews_at: str | None
    default: bool
    until: str | None
    after_usd: str | None


class BudgetList(Page[BudgetView]): ...


def budget_list(found: Iterable[Standing]) -> dict[str, Any]:
    return {"data": [state.public() for state in found], "next_cursor": None}
