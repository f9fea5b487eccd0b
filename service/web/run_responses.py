"""Errors and headers of the answers that start a run, at every door."""

from __future__ import annotations

from flask import Response, g

from service import errors
from service.runs.start import Started
from service.types import usd
from service.web.current import services

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


def with_cost(response: Response, started: Started) -> Response:
    """Add the headers of a finished run to an answer that waited for it, and its time to `Server-Timing`."""
    run = started.run
    cache = (run.result or {}).get("cache", run.cache)
    response.headers["X-Cost-USD"] = "0.000000" if cache in FREE else usd(run.cost_nano)
    g.model_seconds = started.model_seconds
    return with_cache(response, started, cache)


def with_cache(response: Response, started: Started, cache: str) -> Response:
    """Add the headers of a run that has started: `X-Cache`, counted by agent, and `Idempotency-Replayed`."""
    response.headers["X-Cache"] = cache
    services().infra.metrics.cache(started.run.agent, cache)
    return with_replayed(response, started)


def with_replayed(response: Response, started: Started) -> Response:
    if started.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response
