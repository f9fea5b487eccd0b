"""Answers of the API. Field by field as in the contract: money is `Decimal` US dollars, times are aware, UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from slipway_client.errors import Refusal, error_of
from slipway_client.parsing import Model

Status = Literal[
    "queued", "running", "waiting_approval", "waiting_budget", "paused", "succeeded", "failed", "cancelled"
]
ENDED = frozenset({"succeeded", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent(Model):
    """Agent that the caller may use."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage(Model):
    """Tokens and cost of a run."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cost_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse(Model):
    """Tool call of a run; `ms` is its duration. `unknown`: the call may have had its effect."""

    name: str
    ok: bool
    ms: int
    unknown: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Source(Model):
    """Document that an answer rests on."""

    title: str
    uri: str
    quote: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunItem(Model):
    """Run in a list: without its result, `input` cut at 200 characters."""

    run_id: str
    session_id: str | None
    agent: str
    agent_version: str
    user_id: str
    door: str
    status: Status
    input: str | None
    stop_reason: str | None
    model: str | None
    tier: str | None
    steps: int | None
    usage: Usage
    cache: str
    latency_ms: int | None
    created_at: datetime
    finished_at: datetime | None
    error: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        return self.status in ENDED

    def raise_for_error(self) -> None:
        """Raise the `APIError` of a failed or cancelled run."""
        if self.error is not None:
            body = {**self.error, "run_id": self.run_id}
            raise error_of(Refusal(int(self.error.get("status", 500)), body, ""))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult(RunItem):
    """Result of a run that has ended, or waits for decisions on `approvals`, or for money, as `waits_for` says.

    `client_calls` and `stop_sequence` are of runs that were asked for by other APIs than Slipway's own.
    """

    output: str
    structured: Any
    tools: list[ToolUse]
    sources: list[Source]
    repeated_calls: list[str] | None = None
    client_calls: list[dict[str, Any]] | None = None
    stop_sequence: str | None = None
    approvals: list[str] | None = None
    waits_for: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Model):
    """Step of a run."""

    step: int
    kind: str
    name: str
    started_at: datetime
    finished_at: datetime
    cost_usd: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback(Model):
    """Feedback of the run's user: 1 is good, -1 bad."""

    score: int
    comment: str | None
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class File(Model):
    """Image or document that came with a run; `digest`: SHA-256 of its content."""

    type: Literal["image", "document"]
    media_type: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkedFrom(Model):
    """Run that a fork is of, its first step that was made anew, and what replaced the agent's own."""

    run_id: str
    step: int
    model: str | None
    own_prompt: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ForkDifference(Model):
    """Difference between a run and its fork, from the forked step on: pairs of `before` and `after`."""

    status: dict[str, str]
    output_same: bool
    output_diff: str | None
    model_calls: dict[str, int]
    tool_calls: dict[str, int]
    cost_usd: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(RunResult):
    """Run with the files that came with it, its steps, its webhook if any, and its user's feedback.

    A fork has the run that it is of and, once it has ended, its difference to that run.
    """

    files: list[File] | None = None
    forked_from: ForkedFrom | None = None
    difference: ForkDifference | None = None
    step_list: list[Step] | None = None
    webhook: dict[str, Any] | None = None
    feedback: Feedback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Queued(Model):
    """Run that was queued, or is being cancelled."""

    run_id: str
    status: Status


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionItem(Model):
    """Session in a list."""

    id: str
    user_id: str
    agent: str
    title: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Message(Model):
    """Message of a turn that has ended, whose outcome is `status`."""

    id: str
    parent_message_id: str | None
    seq: int
    run_id: str
    role: Literal["user", "assistant"]
    content: Any  # text, or a list of blocks
    status: str
    error_code: str | None
    sources: list[Source]
    tools: list[ToolUse]
    created_at: datetime
    truncated: list[str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(SessionItem):
    """Session with its metadata."""

    metadata: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionWithMessages(Session):
    """Session with its last messages, oldest first; `next_cursor` leads to earlier ones."""

    messages: list[Message]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalTool(Model):
    """Tool of a call that waits. `idempotent`: a call may be repeated without a further effect."""

    description: str
    risk: str
    idempotent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Untrusted(Model):
    """Untrusted text in the run: where it is from, and the arguments taken from it (JSON pointers)."""

    sources: list[str]
    pointers: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval(Model):
    """Tool call that a person decides about. `digest` stands for its name and arguments."""

    id: str
    run_id: str
    user_id: str
    username: str
    agent: str
    session_id: str | None
    session_title: str | None
    input: str | None
    explanation: str | None
    call_id: str
    name: str
    arguments: dict[str, Any]
    digest: str
    tool: ApprovalTool | None
    reason: Literal["policy", "untrusted", "unknown"]
    untrusted: Untrusted | None
    status: Literal["pending", "approved", "denied", "cancelled"]
    comment: str | None
    decided_by: str | None
    created_at: datetime
    expires_at: datetime | None
    decided_at: datetime | None
    truncated: list[str] | None = None
