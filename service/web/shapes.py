"""The bodies and answers of runs and agents, as the contract fixes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from service.types import Effort, Message, RunRequest
from service.usage.caps import Standing
from service.web.schemas import Body, Shape, no_nul

Text = Annotated[str, Field(min_length=1, max_length=400_000), AfterValidator(no_nul)]


class TextBlock(Body):
    type: Literal["text"]
    text: Text


class Turn(Body):
    role: Literal["user", "assistant"]
    content: Text | Annotated[list[TextBlock], Field(min_length=1, max_length=100)]


class RunBody(Body):
    """What a run is asked: `input`, or `messages` that end with the user's turn."""

    input: Text | None = None
    messages: Annotated[list[Turn], Field(min_length=1, max_length=500)] | None = None
    session_id: Annotated[str, Field(pattern=r"^ses_[0-9a-z]{26}$")] | None = None
    context: dict[str, Any] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=128_000)] | None = None
    effort: Effort | None = None
    tier: Literal["auto", "simple", "medium", "complex"] = "auto"
    cache: Literal["default", "bypass", "refresh"] = "default"
    on_disconnect: Literal["continue", "cancel"] = "continue"
    metadata: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_question(self) -> RunBody:
        if (self.input is None) == (self.messages is None):
            raise ValueError("send either `input` or `messages`")
        if self.messages is not None and self.messages[-1].role != "user":
            raise ValueError("the last message must be the user's")
        return self

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
            effort=self.effort,
            tier=self.tier,
            cache=self.cache,
            on_disconnect=self.on_disconnect,
            metadata=self.metadata,
        )


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
    """A run that has ended, or waits for a person."""

    run_id: str
    session_id: str | None
    agent: str
    status: Literal["queued", "running", "waiting_approval", "succeeded", "failed", "cancelled"]
    output: str
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
    error: dict[str, Any] | None = None


class StepShape(Shape):
    step: int
    kind: str
    name: str
    started_at: str
    finished_at: str
    cost_usd: str


class WebhookShape(Shape):
    """How telling the `callback_url` stands."""

    url: str
    status: Literal["waiting", "pending", "delivered", "failed"]
    attempts: int
    next_at: str | None
    last_error: str | None
    delivered_at: str | None


class RunView(RunResult):
    """One run with its steps, and its webhook where it has one."""

    door: str
    step_list: list[StepShape] | None = None
    webhook: WebhookShape | None = None


class RunPage(Shape):
    data: list[RunView]
    next_cursor: str | None


class Queued(Shape):
    run_id: str
    status: Literal["queued", "running", "waiting_approval", "succeeded", "failed", "cancelled"]


class AgentView(Shape):
    id: str
    description: str
    pattern: str
    models: list[str]
    tools: list[str]
    approvals: list[str]
    limits: dict[str, Any]


class AgentList(Shape):
    data: list[AgentView]
    next_cursor: str | None


class EventShape(Shape):
    """One event of the JSON list."""

    id: str
    event: str
    data: dict[str, Any]


class EventList(Shape):
    data: list[EventShape]
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
