"""Request id, headers of every response (`no-store`, unless its view sets another), log line and metrics."""

from __future__ import annotations

import logging
import re
import secrets
import time

from flask import Flask, Response, g, request

from service.observe import logs
from service.store.actor import Origin, serve
from service.web.current import services

log = logging.getLogger("slipway.request")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
QUIET = frozenset({"/health", "/ready", "/metrics"})  # polled constantly: no line at INFO


def install(app: Flask) -> None:
    app.before_request(_begin)

    app.after_request(_finish)


def request_id(sent: str) -> str:
    """Return the client's id if it is valid, else a new one."""
    return sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)


def _begin() -> None:
    g.began = time.perf_counter()
    g.request_id = request_id(request.headers.get("X-Request-ID", ""))
    logs.clear(request_id=g.request_id)
    serve(Origin(request.remote_addr, g.request_id))  # a thread serves one request after another


def _finish(response: Response) -> Response:
    seconds = time.perf_counter() - g.get("began", time.perf_counter())
    model_ms = g.get("model_seconds", 0.0) * 1000
    # Added, not set: no view has these headers, and `set` compares a name with all others.
    response.headers.extend(
        {
            "X-Request-ID": g.get("request_id", ""),
            "Server-Timing": f"total;dur={seconds * 1000:.1f}, llm;dur={model_ms:.1f}",
            "X-Process-Time": f"{seconds:.6f}",
            "X-Content-Type-Options": "nosniff",
        }
    )
    response.headers.setdefault("Cache-Control", "no-store")  # else a shared cache might serve another user
    rule, method = request.url_rule, request.method
    route = "(none)" if rule is None else rule.rule
    services().infra.metrics.request(route, method, response.status_code, seconds)
    if route not in QUIET:
        about = {"method": method, "route": route, "status": response.status_code}
        log.info("request", extra={**about, "ms": round(seconds * 1000, 2), "llm_ms": round(model_ms, 2)})
    return response
