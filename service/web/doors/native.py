"""Native API: ask an agent and wait (`invoke`), listen (`stream`) or queue a task, with Slipway's own bodies."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from flask import Blueprint, Response
from pydantic import Field

from service import errors
from service.runs.result import shown
from service.types import Priority, RunRequest
from service.web.admission import admit, allowed_agent, guard
from service.web.current import current, services
from service.web.openapi import api
from service.web.run_answers import streamed
from service.web.run_body import RunBody
from service.web.run_responses import QUEUED_ERRORS, RUN_ERRORS, folded, queued
from service.web.schemas import Queued, RunResult, Shape, json_response
from service.web.sse import SseLens
from service.web.validation import parse

blueprint = Blueprint("native", __name__)


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
    admitted = admit("stream", partial(_question, agent, "stream"))
    return streamed(admitted, lambda run: SseLens(run.id))


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
    errors=QUEUED_ERRORS,
    tag="Agents",
    headers=("Location", "Idempotency-Replayed"),
)
@guard(counts="run")
def queue_task(agent: str) -> Response:
    return queued(services().runs.start.queue(*admit("task", partial(_task, agent))))


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
