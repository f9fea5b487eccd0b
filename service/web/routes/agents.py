"""What agents there are, and the doors to a run: wait for it, listen to it, queue it."""

from __future__ import annotations

from flask import Blueprint, Response

from service import errors
from service.auth.keys import may_use
from service.runs.result import shown
from service.runs.start import Started
from service.types import usd
from service.web.current import add_headers, own
from service.web.guards import allowed_agent, current_caller, guard, services
from service.web.idempotent import idempotency_key
from service.web.limits import limit_action, limit_runs, limit_session
from service.web.schemas import api, json_response, page, page_arguments, parse
from service.web.shapes import AgentList, AgentView, RunBody, RunResult
from service.web.sse import event_stream

blueprint = Blueprint("agents", __name__)
MODEL_ERRORS = (
    errors.ModelError,
    errors.ModelUnavailable,
    errors.ModelTimeout,
    errors.PriceUnknown,
    errors.BudgetExceeded,
    errors.Overloaded,
    errors.DatabaseUnavailable,
)
RUN_ERRORS = (
    errors.NotFound,
    errors.SessionBusy,
    errors.Invalid,
    errors.IdempotencyMismatch,
    errors.RateLimited,
    *MODEL_ERRORS,
)
RUN_HEADERS = ("X-Cache", "X-Cost-USD", "Idempotency-Replayed")
FREE = ("hit", "near", "coalesced")


@blueprint.get("/v1/agents")
@api(
    "Agents the caller may use, by name",
    returns={200: AgentList},
    errors=[errors.Invalid],
    tag="Agents",
    query={"limit": {"type": "integer"}, "cursor": {"type": "string"}},
)
@guard()
def list_agents() -> Response:
    limit, after = page_arguments(default=100)
    agents = services().catalog.agents
    names = sorted(name for name in agents if _may_use(name) and name > (after or ""))
    return json_response(page([agents[name].public() for name in names], limit))


@blueprint.get("/v1/agents/<agent>")
@api("One agent", returns={200: AgentView}, errors=[errors.NotFound], tag="Agents")
@guard()
def get_agent(agent: str) -> Response:
    return json_response(allowed_agent(agent).public())


@blueprint.post("/v1/agents/<agent>/invoke")
@api(
    "Ask an agent and wait",
    body=RunBody,
    returns={200: RunResult},
    errors=RUN_ERRORS,
    tag="Agents",
    headers=RUN_HEADERS,
)
@guard()
@limit_runs
@limit_action("invoke")
def invoke(agent: str) -> Response:
    """A run that failed is answered with the problem it failed with."""
    asked = parse(RunBody).request(allowed_agent(agent).id)
    limit_session(asked.session_id)
    ours = own()
    started = services().runs.invoke(ours.caller, asked, idempotency_key(), ours.request_id)
    return run_response(started)


@blueprint.post("/v1/agents/<agent>/stream")
@api(
    "Ask an agent and listen",
    body=RunBody,
    errors=RUN_ERRORS,
    tag="Agents",
    stream="text/event-stream",
    headers=("X-Cache", "Idempotency-Replayed"),
)
@guard()
@limit_runs
@limit_action("stream")
def stream(agent: str) -> Response:
    asked = parse(RunBody).request(allowed_agent(agent).id)
    limit_session(asked.session_id)
    queries = services().queries
    ours = own()
    started, batches = services().runs.stream(ours.caller, asked, idempotency_key(), ours.request_id)
    response = event_stream(
        started.run.id, batches, started.place, lambda: queries.client_gone(started.run), started.listener
    )
    return _labelled(response, started, started.run.cache)


def run_response(started: Started) -> Response:
    """The run result, or the problem the run failed with."""
    run = started.run
    result = run.result or {}
    if run.error is not None:
        error = run.error
        response = json_response({**error, "run_id": run.id}, error["status"])
        response.mimetype = "application/problem+json"
        if error["status"] in (429, 503):
            response.headers["Retry-After"] = str(error.get("retry_after", 1))
    else:
        response = json_response(shown(result))
    cache = result.get("cache", run.cache)
    add_headers(response, ("X-Cost-USD", "0.000000" if cache in FREE else usd(run.cost_nano)))
    own().model_seconds = started.model_seconds
    return _labelled(response, started, cache)


def _labelled(response: Response, started: Started, cache: str) -> Response:
    add_headers(response, ("X-Cache", cache))
    services().metrics.cache(started.run.agent, cache)
    if started.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _may_use(agent: str) -> bool:
    return may_use(current_caller(), f"agents:{agent}")
