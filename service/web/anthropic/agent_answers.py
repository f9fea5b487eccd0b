"""Runs of agents that are asked by the Messages API, answered whole or as a stream."""

from __future__ import annotations

from functools import partial

from flask import Response

from service.error_table import error_class
from service.web.admission import Admitted
from service.web.anthropic.agent_lens import MessagesLens, message
from service.web.anthropic.errors import error_of_run, headers_of, status_of
from service.web.current import current, services
from service.web.run_responses import folded, with_cache
from service.web.streaming import stream_response


def answer(admitted: Admitted) -> Response:
    """Start the run that was asked for, and answer with it. Raises as `RunStarter` does."""
    return _streamed(admitted) if admitted.request.door == "messages/stream" else _whole(admitted)


def _whole(admitted: Admitted) -> Response:
    started = services().runs.start.invoke(*admitted)
    run = started.run
    if run.error is None:
        return folded(started, message(run, run.result or {}))
    response = folded(started, error_of_run(run.error), error_type="application/json")
    kind = error_class(run.error["code"])
    response.status_code = status_of(kind)
    response.headers.update(headers_of(kind, run.error.get("retry_after")))
    return response


def _streamed(admitted: Admitted) -> Response:
    started, batches = services().runs.start.stream(*admitted)
    current().begun(admitted.request)
    on_disconnect = partial(services().runs.cancellation.client_gone, started.run)
    lens = MessagesLens(started.run)
    response = stream_response(lens, batches, started.place, on_disconnect, started.listener)
    return with_cache(current(), response, started, started.run.cache)
