"""Around every request: its id, its time, its log line and its metrics."""

from __future__ import annotations

import logging
import re
import time
import uuid

from flask import Flask, Response, g, request

from service.observe import logs
from service.web.guards import services

log = logging.getLogger("slipway.request")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
QUIET = frozenset({"/health", "/ready", "/metrics"})  # asked for all the time: no line at INFO


def install(app: Flask) -> None:
    app.before_request(_begin)
    app.after_request(_finish)


def request_id(sent: str) -> str:
    """The id a client sent, where it is one; else a new one."""
    return sent if _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


def _begin() -> None:
    own_id = request_id(request.headers.get("X-Request-ID", ""))
    # Each look through `g` costs more than all else here.
    ours = g._get_current_object()
    ours.began, ours.request_id = time.perf_counter(), own_id
    logs.clear()
    logs.bind(request_id=own_id)


def _finish(response: Response) -> Response:
    ours, asked = g._get_current_object(), request._get_current_object()  # type: ignore[attr-defined]
    seconds = time.perf_counter() - ours.get("began", time.perf_counter())
    model_ms = ours.get("model_seconds", 0.0) * 1000
    headers, add = response.headers, response.headers.add
    add("X-Request-ID", ours.get("request_id", ""))
    add("Server-Timing", f"total;dur={seconds * 1000:.1f}, llm;dur={model_ms:.1f}")
    add("X-Process-Time", f"{seconds:.6f}")
    headers.setdefault("X-Content-Type-Options", "nosniff")
    route = asked.url_rule.rule if asked.url_rule is not None else "(none)"
    services().metrics.request(route, asked.method, response.status_code, seconds)
    if route not in QUIET:
        logs.event(
            log,
            "request",
            method=asked.method,
            route=route,
            status=response.status_code,
            ms=round(seconds * 1000, 2),
            llm_ms=round(model_ms, 2),
        )
    return response
