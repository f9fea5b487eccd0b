"""Native API: ask an agent and wait (`invoke`), listen (`stream`) or queue a task, with Slipway's own bodies."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import AfterValidator, Field, model_validator

from service import errors
from service.errors import fault
from service.runs.result import shown
from service.types import Effort, OnCap, OnConflict, Priority, RunRequest
from service.web.admission import admit, allowed_agent, guard
from service.web.client_conversation import checked_schema
from service.web.current import current, services
from service.web.openapi import api
from service.web.run_responses import ADMISSION_ERRORS, RUN_ERRORS, folded, with_cache, with_replayed
from service.web.schemas import (
    Body,
    ContextObject,
    EndUser,
    Metadata,
    ModelText,
    Queued,
    RunResult,
    Shape,
    json_response,
)
from service.web.sse import SseLens
from service.web.streaming import stream_response
from service.web.validation import parse

blueprint = Blueprint("native", __name__)


class TextBlock(Body):
    type: Literal["text"]
    text: ModelText


class Turn(Body):
    role: Literal["user", "assistant"]
    content: ModelText | Annotated[list[TextBlock], Field(fail_fast=True, min_length=1, max_length=100)]


OutputSchema = Annotated[
    dict[str, Any],
    Field(
        description="JSON Schema of the answer, which is then JSON: `structured` in the result is its value"
    ),
    AfterValidator(partial(checked_schema, where=["output_schema"])),
]


class RunBody(Body):
    """Question to an agent: `input`, or `messages` that begin and end with the user's turn."""

    input: ModelText | None = None
    messages: Annotated[list[Turn], Field(fail_fast=True, min_length=1, max_length=500)] | None = None
    session_id: Annotated[str, Field(pattern=r"^ses_[0-9a-z]{26}$")] | None = None
    context: ContextObject | None = None
    max_tokens: Annotated[int, Field(ge=1, le=128_000)] | None = None
    max_steps: (
        Annotated[int, Field(ge=1, description="Step limit of the run, at most the agent's `limits.steps`")]
        | None
    ) = None
    effort: Effort | None = None
    tier: Literal["auto", "simple", "medium", "complex"] = "auto"
    cache: Literal["default", "bypass", "refresh"] = "default"
    on_disconnect: Literal["continue", "cancel"] = "continue"
    on_conflict: OnConflict | None = None
    on_cap: OnCap | None = None
    parent_message_id: Annotated[str, Field(pattern=r"^msg_[0-9a-z]{26}$")] | None = None
    output_schema: OutputSchema | None = None
    end_user: EndUser | None = None
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
        """Parent message; "" for an explicit `null` (a first turn), None if omitted (the newest message)."""
        return (self.parent_message_id or "") if "parent_message_id" in self.model_fields_set else None

    def request(self, agent: str, door: str) -> RunRequest:
        """Convert to a run request for `agent`; fields other than the question have the same names there."""
        asked = self.model_dump(exclude={"input"})
        messages = asked["messages"] or [{"role": "user", "content": self.input}]
        asked |= {"agent": agent, "messages": tuple(messages), "parent_message_id": self.parent, "door": door}
        return RunRequest(**asked)


def _of_the_user(messages: list[Turn], number: int) -> None:
    """Raise `Invalid` if that message is not the user's; pydantic would point at the whole body."""
    if messages[number].role != "user":
        raise fault(f"/messages/{number}/role", "the first and the last message must be the user's")


class TaskBody(RunBody):
    """Question for a queued run; `callback_url` gets a webhook at its end, `priority` orders the tasks that wait."""

    callback_url: Annotated[str, Field(max_length=2_000, pattern=r"^https?://")] | None = None
    priority: Priority = "normal"


class StepEstimate(Shape):
    """Model calls of one kind that a run may make. `call_usd`: the most of one; `ceiling_usd`: of all, with retries."""

    name: str
    model: str | None
    calls: int | None
    call_usd: str | None
    ceiling_usd: str


class LikeIt(Shape):
    """Cost of the caller's last `runs` of the agent that succeeded; null without any."""

    median_usd: str | None
    p95_usd: str | None
    runs: int


class EstimateView(Shape):
    """Estimate of a run: the most that it can cost by its limits, and what is `left` under each cap on it."""

    ceiling_usd: str
    steps: list[StepEstimate]
    left: dict[str, str]
    like_it: LikeIt


@blueprint.post("/v1/agents/<agent>/invoke")
@api(
    "Run an agent and wait for the answer",
    body=RunBody,
    returns={200: RunResult},
    errors=RUN_ERRORS,
    tag="Agents",
    headers=("X-Cache", "X-Cost-USD", "Idempotency-Replayed"),
)
@guard(counts="run")
def invoke(agent: str) -> Response:
    """Return the run result, or a failed run's problem."""
    started = services().runs.start.invoke(*admit("invoke", partial(_question, agent, "invoke")))
    run = started.run
    return folded(started, shown(run.result or {}) if run.error is None else {**run.error, "run_id": run.id})


@blueprint.post("/v1/agents/<agent>/stream")
@api(
    "Run an agent and stream its events",
    body=RunBody,
    errors=RUN_ERRORS,
    tag="Agents",
    stream="text/event-stream",
    headers=("X-Cache", "Idempotency-Replayed"),
)
@guard(counts="run")
def stream(agent: str) -> Response:
    started, batches = services().runs.start.stream(*admit("stream", partial(_question, agent, "stream")))
    on_disconnect = partial(services().runs.cancellation.client_gone, started.run)
    lens = SseLens(started.run.id)
    response = stream_response(lens, batches, started.place, on_disconnect, started.listener)
    return with_cache(current(), response, started, started.run.cache)


@blueprint.post("/v1/agents/<agent>/estimate")
@api(
    "Estimate what a run may cost, without running it",
    body=RunBody,
    returns={200: EstimateView},
    errors=(errors.NotFound, errors.Invalid, errors.PriceUnknown),
    tag="Agents",
)
@guard()
def estimate(agent: str) -> Response:
    """Answer from the agent's limits, the prices and the caller's caps and runs; nothing is stored or held."""
    allowed_agent(agent)
    return json_response(services().runs.estimates.of(current().caller, _question(agent, "invoke")))


@blueprint.post("/v1/agents/<agent>/tasks")
@api(
    "Queue a run",
    body=TaskBody,
    returns={202: Queued},
    errors=(*ADMISSION_ERRORS, errors.DatabaseUnavailable),
    tag="Agents",
    headers=("Location", "Idempotency-Replayed"),
)
@guard(counts="run")
def queue_task(agent: str) -> Response:
    """Write the row, then wake a worker; the sweep repeats a lost wake-up."""
    started = services().runs.start.queue(*admit("task", partial(_task, agent)))
    if not started.replayed:
        services().runs.wakeup.ring([started.run.id])
    body = {"run_id": started.run.id, "status": started.run.status}
    response = json_response(body, 202, {"Location": f"/v1/runs/{started.run.id}"})
    return with_replayed(response, started)


def _question(agent: str, door: str) -> RunRequest:
    return parse(RunBody).request(agent, door)


def _task(agent: str) -> RunRequest:
    """Parse a task. Raises `NotFound` for the agent before the body is read, unlike `_question`."""
    allowed_agent(agent)
    body = parse(TaskBody)
    if body.callback_url is not None:
        current().trip.send()  # no look-up in the DNS for a call that is refused
        services().webhooks.check(body.callback_url)
    return body.request(agent, "task")
