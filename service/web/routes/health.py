"""Health checks, for load balancers and for admins, and metrics."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, current_app

from service import __version__
from service.errors import Forbidden, NotFound
from service.observe.probes import Probe, run_all
from service.types import public_fields, rfc3339
from service.web.admission import guard, public
from service.web.current import services
from service.web.lifecycle import draining
from service.web.openapi import api
from service.web.schemas import AgentStopView, Shape, json_response

blueprint = Blueprint("health", __name__)
MODEL_TTL = 5.0  # seconds a model probe is cached: /ready is polled often, the model is remote
REDIS_TTL = 1.0  # seconds a Redis probe is cached; it tries every permission needed


MAX_REPLICAS = 500  # processes in the answer
# What is left when a part is not well, in the words of docs/when-a-part-is-down.md.
MEANS = {
    "database": "Only cached answers are given; all else is 503 `database_unavailable` until it is back.",
    "redis": "Limits are counted per process, answers are not cached, streams are read from the database.",
    "model": "Agents use their other models, or a stale answer where they allow one; else 503 `model_unavailable`.",
    "worker": "Tasks are accepted, and executed by the web processes.",
    "keyring": "Keys are known for ten minutes; without, texts of users are 503 `keyring_unavailable`.",
}


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


class Replica(Shape):
    """Process of a web or task worker; one that is not alive is forgotten after an hour."""

    id: str
    kind: str
    host: str
    pid: int
    started_at: str
    alive: bool


class QueueState(Shape):
    """Unfinished runs of one status; `oldest_at`: when the oldest of them was created."""

    status: str
    count: int
    oldest_at: str


class LineState(Shape):
    """Tasks of one priority in line for a worker; `oldest_at`: when the oldest of them was queued."""

    priority: str
    count: int
    oldest_at: str


class BreakerState(Shape):
    """Circuit breaker of a model at a provider, in the process that answers."""

    model: str
    state: str
    retry_after: float
    provider: str


class Degraded(Shape):
    part: str
    means: str


class Overview(Shape):
    """State of the service. `replicas`, `runs` and `tasks` are empty while the database is away."""

    status: str
    version: str
    parts: Ready
    replicas: list[Replica]
    runs: list[QueueState]
    tasks: list[LineState]
    breakers: list[BreakerState]
    stopped_agents: list[AgentStopView]
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
    "State of the service: processes, runs that have not ended, breakers, and what a degraded part means",
    returns={200: Overview},
    errors=[Forbidden],
    tag="Admin",
)
@guard()
def overview() -> Response:
    state, parts = _readiness(), services()
    stored = _stored() if state["database"]["status"] == "ok" else dict.fromkeys(_STORED, ())
    breakers = [each._asdict() for each in parts.runs.model.breakers()]
    degraded = [
        {"part": part, "means": means}
        for part, means in MEANS.items()
        if part in state and state[part]["status"] != "ok"
    ]
    about = {"status": state["status"], "version": __version__, "parts": state}
    return json_response({**about, **stored, "breakers": breakers, "degraded": degraded})


_STORED = ("replicas", "runs", "tasks", "stopped_agents")


def _stored() -> dict[str, Any]:
    """Read processes, unfinished runs, tasks in line and stopped agents."""
    rows, counts = services().runs.queries.standing(MAX_REPLICAS)
    replicas = [
        public_fields(row, "id kind host pid started_at") | {"alive": bool(row["alive"])} for row in rows
    ]
    found = [
        {"status": status, "count": row["count"], "oldest_at": rfc3339(row["since"])}
        for status, row in sorted(counts.items())
    ]
    tasks = [
        {"priority": priority, "count": row["count"], "oldest_at": rfc3339(row["since"])}
        for priority, row in services().runs.queries.tasks_in_line().items()
    ]
    every = services().runs.stops.every()
    return dict(zip(_STORED, (replicas, found, tasks, every), strict=True))


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
