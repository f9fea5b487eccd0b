"""Errors and headers of the answers that start a run, at every door."""

from __future__ import annotations

from typing import Any

from flask import Response

from service import errors
from service.runs.start import Started
from service.types import usd
from service.web.current import Request, current, services
from service.web.schemas import json_response

ADMISSION_ERRORS = (
    errors.NotFound,
    errors.SessionBusy,
    errors.Invalid,
    errors.IdempotencyMismatch,
    errors.RateLimited,
    errors.AgentStopped,
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
QUEUED_ERRORS = (*ADMISSION_ERRORS, errors.DatabaseUnavailable)
FREE = ("hit", "near", "coalesced")


def folded(started: Started, body: Any, *, error_type: str = "application/problem+json") -> Response:
    """Answer with a finished run: `body` is its result, or its problem, in the door's dialect.

    A failed run has the status of its problem and the media type `error_type`. Adds `X-Cost-USD`, the headers of
    `with_cache`, and the run's time to `Server-Timing`.
    """
    run = started.run
    response = json_response(body)
    if run.error is not None:
        response.status_code, response.mimetype = run.error["status"], error_type
        if response.status_code in (429, 503):
            response.headers["Retry-After"] = str(run.error.get("retry_after", 1))
    cache = (run.result or {}).get("cache", run.cache)
    response.headers.add("X-Cost-USD", "0.000000" if cache in FREE else usd(run.cost_nano))
    request = current()
    request.model_seconds = started.model_seconds
    return with_cache(request, response, started, cache)


def with_cache(request: Request, response: Response, started: Started, cache: str) -> Response:
    """Add the headers of a run that has started: `X-Cache`, counted by agent, and `Idempotency-Replayed`."""
    response.headers.add("X-Cache", cache)
    request.services.infra.metrics.cache(started.run.agent, cache)
    return with_replayed(response, started)


def with_replayed(response: Response, started: Started) -> Response:
    if started.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def queued(started: Started) -> Response:
    """Answer with a queued run, once a worker is woken for it; the sweep repeats a lost wake-up."""
    run = started.run
    if not started.replayed:
        services().runs.wakeup.ring([run.id])
    body = {"run_id": run.id, "status": run.status}
    return with_replayed(json_response(body, 202, {"Location": f"/v1/runs/{run.id}"}), started)
