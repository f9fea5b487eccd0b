"""Request id, headers of every response (`no-store`, unless its view sets another), log line and metrics."""

from __future__ import annotations

import logging
import random
import re
import secrets
import time
from typing import Any

from flask import Response

from service.observe import logs
from service.store.actor import Origin, serve
from service.web.current import Request

log = logging.getLogger("slipway.request")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
HITS = frozenset({"hit", "near", "coalesced"})  # answers without a model call of their own
QUIET = frozenset({"/health", "/ready", "/metrics"})  # polled constantly: no line at INFO


def request_id(sent: str) -> str:
    """Return the client's id if it is valid, else a new one."""
    return sent if _REQUEST_ID.fullmatch(sent) else secrets.token_hex(16)


def begin(request: Request) -> None:
    request.began = time.perf_counter()
    request.id = request_id(request.environ.get("HTTP_X_REQUEST_ID", ""))
    logs.clear(request_id=request.id)
    serve(Origin(request.remote_addr, request.id))  # a thread serves one request after another


def finish(request: Request, response: Response) -> None:
    seconds, model_ms = time.perf_counter() - request.began, request.model_seconds * 1000
    headers = response.headers
    if "Cache-Control" not in headers:  # else a shared cache might serve another user
        headers.add("Cache-Control", "no-store")
    # Added, not set: no view has these headers, and `set` compares a name with all others.
    headers.add("X-Request-ID", request.id)
    headers.add("Server-Timing", f"total;dur={seconds * 1000:.1f}, llm;dur={model_ms:.1f}")
    headers.add("X-Process-Time", f"{seconds:.6f}")
    headers.add("X-Content-Type-Options", "nosniff")
    rule, method = request.url_rule, request.method
    route = "(none)" if rule is None else rule.rule
    request.services.infra.metrics.request(route, method, response.status_code, seconds)
    if route not in QUIET:
        status = response.status_code
        about = {"method": method, "route": route, "status": status, "outcome": outcome_of(status)}
        times = {"ms": round(seconds * 1000, 2), "llm_ms": round(model_ms, 2)}
        _write_line(request, response, {**about, **times}, seconds)


def outcome_of(status: int) -> str:
    """Return what a log line says of an answer: `ok`, `refused` by a 4xx, or `failed` by a 5xx."""
    return "ok" if status < 400 else "refused" if status < 500 else "failed"


def _write_line(request: Request, response: Response, line: dict[str, Any], seconds: float) -> None:
    """Write the line of a request, but of answers from the cache that are quick only a share, where one is set."""
    settings = request.services.settings
    if seconds > settings.log_slow_seconds:
        line["slow"] = True
    elif settings.log_hits_share < 1 and response.headers.get("X-Cache") in HITS:
        if random.random() >= settings.log_hits_share:
            return
        line["share"] = settings.log_hits_share
    log.log(logging.WARNING if line["outcome"] == "failed" else logging.INFO, "request", extra=line)
