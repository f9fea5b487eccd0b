"""Span of a request, where tracing is on: the root of a run's trace, or the child of a client's span."""

from __future__ import annotations

import re
import time

from flask import Response

from service.auth.run_tokens import PREFIX as RUN_PREFIX
from service.observe import genai, tracing
from service.web.current import Request

POLLED = frozenset({"/health", "/ready", "/metrics"})
_PARAMETER = re.compile(r"<(?:[^<>:]+:)?([^<>]+)>")


def begin(request: Request) -> None:
    """Begin the span of a request. `of_run` begins that of one with the token of a run, once the token is found."""
    tracing.enter(None)
    sent = request.environ
    given = sent.get("HTTP_X_API_KEY") or sent.get("HTTP_AUTHORIZATION", "").rpartition(" ")[2]
    if sent.get("PATH_INFO") not in POLLED and not given.startswith(RUN_PREFIX):
        _begin(request, trusted=False)


def of_run(request: Request) -> None:
    """Begin the span of a call with the token of a run, whose agent goes on in the trace that it was given."""
    if request.services.infra.tracer.on:
        _begin(request, trusted=True)


def end(request: Request, response: Response) -> None:
    """End the span, once the response is sent if that is a stream."""
    span = request.span
    if span is None:
        return
    status = response.status_code
    span.set({genai.HTTP_STATUS: status, genai.CACHE: response.headers.get("X-Cache")})
    if hasattr(request, "caller"):
        span.set({genai.USER: request.caller.user_id})
    if status >= 500:
        span.fail(str(status))
    if response.is_streamed:
        response.call_on_close(span.end)
    else:
        span.end()


def _begin(request: Request, *, trusted: bool) -> None:
    tracer = request.services.infra.tracer
    parent = tracer.incoming(request.environ.get("HTTP_TRACEPARENT"), trusted=trusted)
    method = request.method
    route = "" if request.url_rule is None else _PARAMETER.sub(r"{\1}", request.url_rule.rule)
    about = {genai.HTTP_METHOD: method, genai.HTTP_ROUTE: route or None, genai.REQUEST_ID: request.id}
    ago = int((time.perf_counter() - request.began) * 1e9)
    name = f"{method} {route}".strip()
    request.span = tracer.begin(name, "server", about, parent=parent, began_ns=time.time_ns() - ago)
    tracing.enter(request.span)
