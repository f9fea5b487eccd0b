"""Health checks and metrics."""

from __future__ import annotations

from flask import Blueprint, Response, current_app

from service import __version__
from service.errors import NotFound
from service.observe.probes import Probe, run_all
from service.web.admission import public
from service.web.current import services
from service.web.lifecycle import draining
from service.web.openapi import api
from service.web.schemas import Shape, json_response

blueprint = Blueprint("health", __name__)
MODEL_TTL = 5.0  # seconds a model probe is cached: /ready is polled often, the model is remote
REDIS_TTL = 1.0  # seconds a Redis probe is cached; it tries every permission needed


class Health(Shape):
    status: str
    version: str


class Part(Shape):
    status: str
    latency_ms: float
    reason: str | None = None  # why it is not ok, in fixed words, if known


class Ready(Shape):
    status: str
    database: Part
    redis: Part
    model: Part
    worker: Part


@blueprint.get("/health")
@api("Liveness of the process", returns={200: Health}, tag="Operations")
@public
def health() -> Response:
    return json_response({"status": "ok", "version": __version__})


@blueprint.get("/ready")
@api(
    "Readiness for requests, with the state of each part", returns={200: Ready, 503: Ready}, tag="Operations"
)
@public
def ready() -> Response:
    parts = run_all(_probes())
    stopping = draining()
    up = parts["database"]["status"] == "ok" and not stopping
    whole = all(part["status"] == "ok" for part in parts.values())
    status = "draining" if stopping else "unavailable" if not up else "ok" if whole else "degraded"
    headers = {} if up else {"Retry-After": "1"}
    return json_response({"status": status, **parts}, 200 if up else 503, headers)


@blueprint.get("/metrics")
@api(
    "Metrics of all workers in Prometheus' text format",
    tag="Operations",
    stream="text/plain",
    errors=[NotFound],
)
@public
def metrics() -> Response:
    if not services().settings.metrics_enabled:
        raise NotFound("METRICS_ENABLED is off.")
    body, media_type = services().infra.metrics.render()
    return Response(body, content_type=media_type)


def _probes() -> dict[str, Probe]:
    """Return this application's probes, created on first use: after the fork."""
    extensions, parts = current_app.extensions, services()
    if "slipway_probes" not in extensions:
        probes = {
            "database": Probe(parts.infra.db.ping, "down"),
            "redis": Probe(parts.infra.redis_store.check, "degraded", REDIS_TTL),
            "model": Probe(parts.runs.model.ping, "degraded", MODEL_TTL),
            "worker": Probe(lambda: parts.runs.supervisor.workers_alive("task") > 0, "degraded"),
        }
        extensions.setdefault("slipway_probes", probes)
    return extensions["slipway_probes"]  # type: ignore[no-any-return]
