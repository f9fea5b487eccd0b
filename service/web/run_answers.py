"""Answers of doors that start a run: whole or as a stream, in the dialect of the door."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from flask import Response

from service.types import Run
from service.web.admission import Admitted
from service.web.current import current, services
from service.web.run_responses import folded, with_cache
from service.web.streaming import Lens, stream_response

Problem = Mapping[str, Any]  # of a failed run
ProblemOfRun = Callable[[Problem], tuple[dict[str, Any], int, dict[str, str]]]  # body, status and headers


def whole(
    admitted: Admitted, encode: Callable[[Run, Mapping[str, Any]], Any], problem_of_run: ProblemOfRun
) -> Response:
    """Start a run and answer with its result, or its problem, once it has ended. Raises as `RunStarter.invoke`."""
    started = services().runs.start.invoke(*admitted)
    run = started.run
    if run.error is None:
        return folded(started, encode(run, run.result or {}))
    body, status, headers = problem_of_run(run.error)
    response = folded(started, body, error_type="application/json")
    response.status_code = status
    response.headers.update(headers)
    return response


def streamed(admitted: Admitted, lens_of: Callable[[Run], Lens]) -> Response:
    """Start a run and answer with its events. Raises as `RunStarter.stream`."""
    started, batches = services().runs.start.stream(*admitted)
    current().begun(admitted.request)
    on_disconnect = partial(services().runs.cancellation.client_gone, started.run)
    response = stream_response(lens_of(started.run), batches, started.place, on_disconnect, started.listener)
    return with_cache(current(), response, started, started.run.cache)
