"""The bodies and answers of runs and agents, as the contract fixes them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from service.text import exact_json
from service.types import Effort, Message, OnConflict, RunRequest, rfc3339
from service.usage.caps import Standing
from service.web.body import fault
from service.web.schemas import Body, Shape, no_nul

METADATA_BYTES = 16 * 1024  # as compact JSON
METADATA_MEMBERS = 64
METADATA_DEPTH = 8  # levels of objects and lists, itself the first


def _not_blank(text: str) -> str:
    """For a text that the model is asked: it refuses one in which there is nothing to see."""
    if all(unicodedata.category(letter)[0] in "ZC" for letter in text):
        raise ValueError("must contain more than white space")
    return text


def _is_object(text: str) -> str:
    if not text.startswith("{"):
        raise ValueError("must be an object")
    return text


def _is_small(text: str) -> str:
    """The contract's bounds of `metadata`."""
    if len(text.encode()) > METADATA_BYTES:
        raise ValueError(f"must not have more than {METADATA_BYTES} bytes as JSON")
    value = exact_json.loads(text.encode())
    if len(value) > METADATA_MEMBERS:
        raise ValueError(f"must not have more than {METADATA_MEMBERS} members")
    if _depth(value) > METADATA_DEPTH:
        raise ValueError(f"must not be nested deeper than {METADATA_DEPTH} levels")
    return text


def _depth(value: Any) -> int:
    """Levels of objects and lists."""
    if not isinstance(value, dict | list):
        return 0
    return 1 + max(map(_depth, value.values() if isinstance(value, dict) else value), default=0)


Text = Annotated[
    str, Field(min_length=1, max_length=400_000), AfterValidator(no_nul), AfterValidator(_not_blank)
]
# JSON text, see `service.web.body.AS_TEXT`; to a client it is an object.
ContextObject = Annotated[str, AfterValidator(_is_object), WithJsonSchema({"type": "object"})]
Metadata = Annotated[
    str,
    AfterValidator(_is_object),
    AfterValidator(_is_small),
    WithJsonSchema({"type": "object", "maxProperties": METADATA_MEMBERS}),
]


class TextBlock(Body):
    type: Literal["text"]
    text: Text


class Turn(Body):
    role: Literal["user", "assistant"]
    content: Text | Annotated[list[TextBlock], Field(fail_fast=True, min_length=1, max_length=100)]


class RunBody(Body):
    """A question to an agent: `input`, or `messages` that begin and end with the user's turn."""

    input: Text | None = None
    messages: Annotated[list[Turn], Field(fail_fast=True, min_length=1, max_length=500)] | None = None
    session_id: Annotated[str, Field(pattern=r"^ses_[0-9a-z]{26}$")] | None = None
    context: ContextObject | None = None
    max_tokens: Annotated[int, Field(ge=1, le=128_000)] | None = None
    max_steps: Annotated[int, Field(ge=1, description="At most `limits.steps` of the agent")] | None = None
    effort: Effort | None = None
    tier: Literal["auto", "simple", "medium", "complex"] = "auto"
    cache: Literal["default", "bypass", "refresh"] = "default"
    on_disconnect: Literal["continue", "cancel"] = "continue"
    on_conflict: OnConflict | None = None
    parent_message_id: Annotated[str, Field(pattern=r"^msg_[0-9a-z]{26}$")] | None = None
    metadata: Metadata | None = None

    @model_validator(mode="after")
    def _one_question(self) -> RunBody:
        if (self.input is None) == (self.messages is None):
            raise ValueError("send either `input` or `messages`")
        if self.messages is not None:
            _of_the_user(self.messages, 0)
            _of_the_user(self.messages, len(self.messages) - 1)
        if self.parent_message_id is not None and self.session_id is None:
            raise fault("/parent_message_id", "needs a `session_id`")
        return self

    @property
    def parent(self) -> str | None:
        """A `null` that was sent is a turn without one before it; left out, the turn goes on from the newest."""
        return (self.parent_message_id or "") if "parent_message_id" in self.model_fields_set else None

    def request(self, agent: str) -> RunRequest:
        """The same as a run request, for `agent`."""
        if self.messages is not None:
            messages: tuple[Message, ...] = tuple(turn.model_dump() for turn in self.messages)
        else:
            messages = ({"role": "user", "content": self.input},)
        return RunRequest(
            agent=agent,
            messages=messages,
            session_id=self.session_id,
            context=self.context,
            max_tokens=self.max_tokens,
            max_steps=self.max_steps,
            effort=self.effort,
            tier=self.tier,
            cache=self.cache,
            on_disconnect=self.on_disconnect,
            on_conflict=self.on_conflict,
            parent_message_id=self.parent,
            metadata=self.metadata,
        )


def _of_the_user(messages: list[Turn], number: int) -> None:
    """Raises `Invalid` where that message is not the user's; pydantic would point at the whole body."""
    if messages[number].role != "user":
        raise fault(f"/messages/{number}/role", "the first and the last message must be the user's")


class TaskBody(RunBody):
    """A queued run may be told of by webhook, and may wait for the cheaper batch."""

    callback_url: Annotated[str, Field(max_length=2_000, pattern=r"^https?://")] | None = None
    priority: Literal["normal", "batch"] = "normal"

    def request(self, agent: str) -> RunRequest:
        return replace(super().request(agent), callback_url=self.callback_url, priority=self.priority)


class UsageShape(Shape):
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cost_usd: str
    usage_source: Literal["reported", "estimated", "worst"] = "reported"


class ToolShape(Shape):
    name: str
    ok: bool
    ms: int


class SourceShape(Shape):
    title: str
    uri: str
    quote: str


class RunResult(Shape):
    """A run that has ended, or waits for a person to decide about `approvals`."""

    run_id: str
    session_id: str | None
    agent: str
    agent_version: str
    user_id: str
    door: str
    status: Literal["queued", "running", "waiting_approval", "succeeded", "failed", "cancelled"]
    input: str
    output: str
    structured: Any
    stop_reason: str | None
    model: str | None
    tier: str | None
    steps: int
    tools: list[ToolShape]
    sources: list[SourceShape]
    usage: UsageShape
    cache: Literal["hit", "near", "stale", "coalesced", "miss", "bypass"]
    latency_ms: int | None
    created_at: str
    finished_at: str | None
    approvals: list[str] | None = None
    error: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


class FeedbackShape(Shape):
    """What the user of a run thinks of it: 1 for good, -1 for bad."""

    score: int
    comment: str | None
    created_at: str
    updated_at: str


def feedback_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """A `FeedbackShape`."""
    times = {name: rfc3339(row[name]) for name in ("created_at", "updated_at")}
    return {"score": row["score"], "comment": row["comment"], **times}


class Queued(Shape):
    run_id: str
    status: Literal["queued", "running", "waiting_approval", "succeeded", "failed", "cancelled"]


class AgentView(Shape):
    id: str
    description: str
    pattern: str
    version: str
    models: list[str]
    tools: list[str]
    approvals: list[str]
    limits: dict[str, Any]


class AgentList(Shape):
    data: list[AgentView]
    next_cursor: str | None


class BudgetView(Shape):
    """One cap in its present window. A lifted cap has no amount."""

    scope: str
    period: str
    amount_usd: str | None
    spent_usd: str
    reserved_usd: str
    left_usd: str | None
    renews_at: str | None
    default: bool


class BudgetList(Shape):
    data: list[BudgetView]
    next_cursor: str | None


def budget_list(found: Iterable[Standing]) -> dict[str, Any]:
    """A `BudgetList`."""
    return {"data": [state.public() for state in found], "next_cursor": None}
