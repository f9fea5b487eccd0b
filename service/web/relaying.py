"""Answers of relayed runs: the bytes of a model's answer, whole or as they arrive, and errors in a door's dialect."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from flask import Response, request

from service.cache.relayed import Freshness
from service.llm.relay import RelayedRequest
from service.runs.relay_start import Relay
from service.runs.relayed_call import RelayedCall
from service.types import usd
from service.web.admission import Admitted
from service.web.body import raw_json
from service.web.current import current, services
from service.web.run_answers import Problem, ProblemOfRun
from service.web.run_responses import with_cache
from service.web.schemas import json_response
from service.web.streaming import HEADERS


class Dialect(NamedTuple):
    """Errors of a door: the answer to a failed run, and its body as the last event of a stream that has begun."""

    problem_of_run: ProblemOfRun
    event: Callable[[Mapping[str, Any]], bytes]

    def answer(self, problem: Problem) -> Response:
        return json_response(*self.problem_of_run(problem))


def model_named() -> str | None:
    """Return the name in the body where it is a model's of the price table, and no agent's."""
    value = raw_json(services().settings.door_body_limit)
    name = value.get("model") if isinstance(value, dict) else None
    return name if isinstance(name, str) and services().agents.model(name) is not None else None


def relayed_answer(admitted: Admitted, asked: RelayedRequest, dialect: Dialect) -> Response:
    """Relay a call as a run of its own, and answer with it. Raises as `RunStarter.relay` does."""
    freshness = Freshness.of(current().headers.get("cache-control", ""))
    relayed = RelayedCall(asked, hang_up(), freshness)
    relay = services().runs.relays.relay(*admitted, relayed)
    first = next(relay.pieces, None)
    if first is None or not asked.stream:
        response = _whole(relay, first or b"", dialect)
        current().model_seconds = relayed.seconds
    else:
        response = _streamed(relay, first, dialect)
    return with_cache(current(), response, relay.started, relay.started.run.cache)


def _whole(relay: Relay, first: bytes, dialect: Dialect) -> Response:
    """Answer once the run has ended: with all of its answer, or its error."""
    body = first + b"".join(relay.pieces)
    run = relay.started.run
    response = Response(body, mimetype="application/json") if run.error is None else dialect.answer(run.error)
    response.headers["X-Cost-USD"] = usd(run.cost_nano)
    return response


def _streamed(relay: Relay, first: bytes, dialect: Dialect) -> Response:
    """Stream the answer; a failure after its beginning is an event of the stream."""

    def body() -> Iterator[bytes]:
        try:
            yield first
            yield from relay.pieces
            if relay.started.run.error is not None:
                yield dialect.event(dialect.problem_of_run(relay.started.run.error)[0])
        finally:
            relay.close()

    response = Response(body(), mimetype="text/event-stream", headers=HEADERS)
    response.call_on_close(relay.close)  # also where its body was never asked for
    return response


def hang_up() -> Callable[[], None]:
    """Return what ends the connection of this request, whatever its thread does."""
    sock = request.environ.get("gunicorn.socket")
    if not isinstance(sock, socket.socket):
        return lambda: None

    def hang_up() -> None:
        with suppress(OSError):  # closed already
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    return hang_up
