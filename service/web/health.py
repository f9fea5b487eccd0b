"""For those who run it: alive, ready, metrics."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from flask import Blueprint, Response, current_app

from service.errors import SlipwayError
from service.store import workers
from service.web.drain import draining
from service.web.guards import public, services
from service.web.schemas import Shape, api, json_response

blueprint = Blueprint("health", __name__)
MODEL_TTL = 5.0  # seconds a look at the model is good for: /ready is asked often, the model is far away


class Health(Shape):
    status: str


class Part(Shape):
    status: str
    latency_ms: float


class Ready(Shape):
    status: str
    database: Part
    redis: Part
    model: Part
    worker: Part


@blueprint.get("/health")
@api("The process lives", returns={200: Health}, tag="Operations")
@public
def health() -> Response:
    return json_response({"status": "ok"})


@blueprint.get("/ready")
@api("Ready for requests: each part's state", returns={200: Ready, 503: Ready}, tag="Operations")
@public
def ready() -> Response:
    parts = {"database": _database(), "redis": _redis(), "model": _model(), "worker": _worker()}
    stopping = draining()
    up = parts["database"]["status"] == "ok" and not stopping
    whole = all(part["status"] == "ok" for part in parts.values())
    status = "draining" if stopping else "unavailable" if not up else "ok" if whole else "degraded"
    headers = {} if up else {"Retry-After": "1"}
    return json_response({"status": status, **parts}, 200 if up else 503, headers)


@blueprint.get("/metrics")
@api("Prometheus text over all workers", tag="Operations", stream="text/plain")
@public
def metrics() -> Response:
    body, media_type = services().metrics.render()
    return Response(body, content_type=media_type)


def _timed(look: Callable[[], object], down: str) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        status = "ok" if look() is not False else down
    except SlipwayError:
        status = down
    return {"status": status, "latency_ms": round((time.perf_counter() - began) * 1000, 2)}


def _database() -> dict[str, Any]:
    return _timed(services().db.ping, "down")


def _redis() -> dict[str, Any]:
    return _timed(
        lambda: services().speed.call(lambda client: bool(client.ping()), default=False), "degraded"
    )


def _worker() -> dict[str, Any]:
    return _timed(
        lambda: services().db.query(lambda tx: workers.alive(tx, "task"), patience=0) > 0, "degraded"
    )


class _ModelLook:
    """The last look at the model, shared by all threads of an application."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0
        self._part: dict[str, Any] = {}

    def part(self) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() > self._until:
                self._part = _timed(services().model.ping, "degraded")
                self._until = time.monotonic() + MODEL_TTL
            return self._part


def _model() -> dict[str, Any]:
    look: _ModelLook = current_app.extensions.setdefault("slipway_model_look", _ModelLook())
    return look.part()
