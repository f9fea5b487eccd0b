"""Native door: ask an agent and wait (`invoke`), listen (`stream`) or queue a task, with the contract's own bodies."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response, g

from service import errors
from service.runs.result import shown
from service.runs.start import Started
from service.types import RunRequest, usd
from service.web.admission import admit, allowed_agent, guard
from service.web.current import services
from service.web.schemas import api, json_response, parse
from service.web.shapes import Queued, RunBody, RunResult, TaskBody
from service.web.sse import SseLens
from service.web.streaming import stream_response

blueprint = Blueprint("native", __name__)
ADMISSION_ERRORS = (
    errors.NotFound,
    errors.SessionBusy,
    errors.Invalid,
    errors.IdempotencyMismatch,
    errors.RateLimited,
)
RUN_ERRORS = (
    *ADMISSION_ERRORS,
    errors.ModelError,
    errors.ModelUnavailable,
    errors.ModelTimeout,
    errors.PriceUnknown,
    errors.BudgetExceeded,
    errors.Overloaded,
    errors.DatabaseUnavailable,
)
FREE = ("hit", "near", "coalesced")


@blueprint.post("/v1/agents/<agent>/invoke")
@api(
    "Ask an agent and wait",
    body=RunBody,
    returns={200: RunResult},
    errors=RUN_ERRORS,
    tag="Agents",
    headers=("X-Cache", "X-Cost-USD", "Idempotency-Replayed"),
)
@guard(counts="run")
def invoke(agent: str) -> Response:
    """A run that failed is answered with the problem it failed with."""
    return _folded(services().runs.invoke(*admit("invoke", partial(_question, agent))))


@blueprint.post("/v1/agents/<agent>/stream")
@api(
    "Ask an agent and listen",
    body=RunBody,
    errors=RUN_ERRORS,
    tag="Agents",
    stream="text/event-stream",
    headers=("X-Cache", "Idempotency-Replayed"),
)
@guard(counts="run")
def stream(agent: str) -> Response:
    started, batches = services().runs.stream(*admit("stream", partial(_question, agent)))
    gone = partial(services().queries.client_gone, started.run)
    lens = SseLens(started.run.id)
    response = stream_response(lens, batches, started.place, gone, started.listener)
    return _labelled(response, started, started.run.cache)


@blueprint.post("/v1/agents/<agent>/tasks")
@api(
    "Ask an agent and do not wait",
    body=TaskBody,
    returns={202: Queued},
    errors=(*ADMISSION_ERRORS, errors.DatabaseUnavailable),
    tag="Agents",
    headers=("Location", "Idempotency-Replayed"),
)
@guard(counts="run")
def queue_task(agent: str) -> Response:
    """The row first; the message that wakes a worker goes out after it, and may get lost."""
    started = services().runs.queue(*admit("task", partial(_task, agent)))
    if not started.replayed:
        services().wakeup.ring([started.run.id])
    body = {"run_id": started.run.id, "status": started.run.status}
    response = json_response(body, 202, {"Location": f"/v1/runs/{started.run.id}"})
    return _replayed(response, started)


def _question(agent: str) -> RunRequest:
    return parse(RunBody).request(agent)


def _task(agent: str) -> RunRequest:
    """An unknown agent is told before a body that does not fit, other than for `_question`."""
    allowed_agent(agent)
    body = parse(TaskBody)
    if body.callback_url is not None:
        services().webhooks.check(body.callback_url)
    return body.request(agent)


def _folded(started: Started) -> Response:
    """The run result, or the problem the run failed with."""
    run = started.run
    result = run.result or {}
    if run.error is not None:
        response = json_response({**run.error, "run_id": run.id}, run.error["status"])
        response.mimetype = "application/problem+json"
        if run.error["status"] in (429, 503):
            response.headers["Retry-After"] = str(run.error.get("retry_after", 1))
    else:
        response = json_response(shown(result))
    cache = result.get("cache", run.cache)
    response.headers["X-Cost-USD"] = "0.000000" if cache in FREE else usd(run.cost_nano)
    g.model_seconds = started.model_seconds
    return _labelled(response, started, cache)


def _labelled(response: Response, started: Started, cache: str) -> Response:
    response.headers["X-Cache"] = cache
    services().metrics.cache(started.run.agent, cache)
    return _replayed(response, started)


def _replayed(response: Response, started: Started) -> Response:
    if started.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response
