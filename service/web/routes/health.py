"""Health checks, for load balancers and for admins, and metrics."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app

from service import __version__
from service.errors import Forbidden, NotFound
from service.observe.probes import Probe, run_all
from service.web.admission import guard, public
from service.web.current import current_caller, services
from service.web.lifecycle import draining
from service.web.openapi import api
from service.web.schemas import AgentStopView, Shape, json_response

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
    keyring: Part | None = None  # where texts are sealed


class Pool(Shape):
    """Pool of a process, such as its places for requests and its connections to the database."""

    name: str
    used: int
    size: int


class Traffic(Shape):
    """Requests of the last minute, without probes; `failed`: with a status from 500 on.

    The times are upper bounds within which a half and 95 of 100 were answered; null beyond 300 seconds, and without
    requests.
    """

    requests: int
    failed: int
    p50_seconds: float | None
    p95_seconds: float | None


class Replica(Shape):
    """Process of a web or task worker; one that is not alive is forgotten after an hour.

    `lease_seconds` are left of its lease; below 0, it ended so long ago. What it tells of itself is as of the last
    renewal, and null in a release before.
    """

    id: str
    kind: str
    host: str
    pid: int
    started_at: str
    alive: bool
    uptime_seconds: int
    lease_seconds: float
    version: str | None
    runs: int | None
    pools: list[Pool]
    traffic: Traffic | None


class Waiting(Shape):
    """Things that wait, or are open; `oldest_at`: since when the oldest does."""

    count: int
    oldest_at: str | None


class QueueState(Waiting):
    """Unfinished runs of one status."""

    status: str


class LineState(Waiting):
    """Tasks of one priority in line for a worker."""

    priority: str


class ScheduleState(Shape):
    """Slots that are overdue, and how many of the last day made no run."""

    overdue: Waiting
    missed: int


class HoldState(Waiting):
    """Money that is held for calls under way."""

    held_usd: str


class AuditState(Shape):
    """Age of the oldest row that its chain lacks; `intact`: null until a process has verified all of it."""

    unlinked_seconds: float
    intact: bool | None


class Disk(Shape):
    free_bytes: int
    size_bytes: int


class BreakerState(Shape):
    """Circuit breaker of a model at a provider: the worst state of any process, and in how many it is not closed."""

    model: str
    state: str
    retry_after: float
    provider: str
    open_in: int


class McpServerState(Shape):
    """Server of tools: in how many processes it is reached, and in how many it is not."""

    server: str
    up_in: int
    away_in: int
    breaker: str


class Degraded(Shape):
    """Part that is degraded, which one of its kind, what that means and what to do; `see`: a page of `docs/`."""

    part: str
    about: str | None
    means: str
    do: str
    see: str


class Overview(Shape):
    """State of the service, at most two seconds old.

    From `replicas` to `stopped_agents` for admins of the service only, else null; those that stand in the database are
    null while it cannot be read.
    """

    status: str
    version: str
    parts: Ready
    replicas: list[Replica] | None
    traffic: Traffic | None
    runs: list[QueueState] | None
    tasks: list[LineState] | None
    approvals: Waiting | None
    schedules: ScheduleState | None
    holds: HoldState | None
    audit: AuditState | None
    disk: Disk | None
    stopped_agents: list[AgentStopView] | None
    breakers: list[BreakerState]
    mcp_servers: list[McpServerState]
    degraded: list[Degraded]


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
    state = _readiness()
    up = state["status"] in ("ok", "degraded")
    return json_response(state, 200 if up else 503, {} if up else {"Retry-After": "1"})


def _readiness() -> dict[str, Any]:
    parts = run_all(_probes())
    up, whole = parts["database"]["status"] == "ok", all(part["status"] == "ok" for part in parts.values())
    status = "draining" if draining() else "unavailable" if not up else "ok" if whole else "degraded"
    return {"status": status, **parts}


@blueprint.get("/v1/admin/health")
@api(
    "State of the service: processes, traffic, queues, breakers, and what a degraded part means",
    returns={200: Overview},
    errors=[Forbidden],
    tag="Admin",
)
@guard()
def overview() -> Response:
    state, caller = _readiness(), current_caller()
    about = {"status": state["status"], "version": __version__, "parts": state}
    found = services().health.read(state, whole=caller.confined_to is None)
    return json_response({**about, **found})


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
            "model": Probe(parts.runs.model.calls.ping, "degraded", MODEL_TTL),
            "worker": Probe(lambda: parts.runs.supervisor.workers_alive("task") > 0, "degraded"),
        }
        if parts.keyring is not None:
            probes["keyring"] = Probe(parts.keyring.db.ping, "degraded")
        extensions.setdefault("slipway_probes", probes)
    return extensions["slipway_probes"]  # type: ignore[no-any-return]
