"""Health of the service, for operators and admins: processes, queues, and what a degraded part means."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service import __version__
from service.errors import DatabaseUnavailable
from service.health import overview
from service.health.meanings import MEANINGS
from service.observe import traffic
from service.store import standing, workers
from service.types import DEFAULT_WORKSPACE
from tests.conftest import ROOT, Model
from tests.usage.conftest import postgres_url
from tests.web.test_health import make

__all__ = ["make", "postgres_url"]


def client_of(made: Flask, role: str, workspace: str = "default") -> FlaskClient:
    services = made.extensions["slipway"]
    auth, workspace_id = services.auth, DEFAULT_WORKSPACE
    if workspace != "default":
        row = auth.workspaces.new_row(workspace)
        workspace_id = services.infra.db.transact(lambda tx: auth.workspaces.insert(tx, row)).id
    user = auth.users.create(f"{role}-{workspace}", "a-long-password", role, workspace_id=workspace_id)
    client = made.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {auth.keys.create(user.id, 'k')['key']}"
    return client


def health_of(client: FlaskClient) -> dict[str, Any]:
    answer = client.get("/v1/admin/health")
    assert answer.status_code == 200, answer.text
    state: dict[str, Any] = answer.get_json()
    return state


def test_admin_sees_what_runs_and_what_a_degraded_part_means(
    make: Callable[..., Flask], model: Model
) -> None:
    made = make(ANTHROPIC_BASE_URL=model.url)
    services = made.extensions["slipway"]
    client = client_of(made, "admin")
    asked = {"input": "Hello.", "cache": "bypass"}
    task = {**asked, "priority": "high"}
    assert client.post("/v1/agents/assistant/tasks", json=task).status_code == 202
    assert client.post("/v1/agents/assistant/invoke", json=asked).status_code == 200
    services.runs.supervisor._renew()  # its row in the table of workers
    services.infra.db.transact(lambda tx: services.runs.stops.stop(tx, "support", "Refunds"))
    state = health_of(client)
    [replica] = state["replicas"]
    assert (replica["kind"], replica["alive"], replica["version"]) == ("web", True, __version__)
    assert 0 < replica["lease_seconds"] <= services.settings.lease_seconds and replica["uptime_seconds"] < 100
    assert {"database", "places"} <= {pool["name"] for pool in replica["pools"]}
    assert (state["traffic"]["requests"], state["traffic"]["failed"]) == (2, 0)
    assert 0 < state["traffic"]["p50_seconds"] <= state["traffic"]["p95_seconds"]
    assert [(each["status"], each["count"]) for each in state["runs"]] == [("queued", 1)]
    [line] = state["tasks"]
    assert (line["priority"], line["count"]) == ("high", 1)
    assert line["oldest_at"] == state["runs"][0]["oldest_at"]
    assert state["approvals"] == {"count": 0, "oldest_at": None}
    assert state["holds"] == {"count": 0, "oldest_at": None, "held_usd": "0.000000"}
    assert state["schedules"] == {"overdue": {"count": 0, "oldest_at": None}, "missed": 0}
    assert [(each["state"], each["open_in"]) for each in state["breakers"]] == [("closed", 0)]
    assert [each["agent"] for each in state["stopped_agents"]] == ["support"]
    assert state["status"] == "degraded" and state["parts"]["database"]["status"] == "ok"
    told = {each["part"]: each for each in state["degraded"]}
    assert told.keys() >= {"redis", "worker", "agent"} and told["agent"]["about"] == "support"
    assert "per process" in told["redis"]["means"] and "Bring Redis back" in told["redis"]["do"]


@pytest.mark.parametrize(("role", "workspace"), [("operator", "default"), ("admin", "other")])
def test_others_see_what_is_degraded_and_nothing_of_others(
    make: Callable[..., Flask], role: str, workspace: str
) -> None:
    made = make()
    made.extensions["slipway"].runs.supervisor._renew()
    state = health_of(client_of(made, role, workspace))
    hidden = (
        "replicas",
        "traffic",
        "runs",
        "tasks",
        "approvals",
        "schedules",
        "holds",
        "audit",
        "disk",
        "stopped_agents",
    )
    assert [state[name] for name in hidden] == [None] * len(hidden)
    assert {"redis", "worker"} <= {each["part"] for each in state["degraded"]}
    assert client_of(made, "user").get("/v1/admin/health").status_code == 403


def test_process_that_died_and_what_others_tell_are_seen(make: Callable[..., Flask]) -> None:
    made = make()
    services = made.extensions["slipway"]
    services.runs.supervisor._renew()
    open_breaker = {"model": "m", "provider": "anthropic", "state": "open", "retry_after": 9.0}
    state = {
        **services.health.own.read(),
        "version": "0.0.1",
        "breakers": [open_breaker],
        "servers": [["calendar", False, "closed"], ["mail", None, "closed"]],
        "audit_intact": False,
    }

    def others(tx: Any) -> None:
        workers.register(tx, "wrk_dead", "task", "elsewhere", 7, -60_000)
        for name, told in (("wrk_old", None), ("wrk_other", state)):
            workers.register(tx, name, "task", "elsewhere", 8, 60_000)
            workers.renew(tx, name, 60_000, told)

    services.infra.db.transact(others)
    found = health_of(client_of(made, "admin"))
    told = {(each["part"], each["about"]) for each in found["degraded"]}
    assert told >= {
        ("process", "task elsewhere 7"),
        ("versions", f"0.0.1, {__version__}"),
        ("breaker", "m at anthropic"),
        ("mcp", "calendar"),
        ("audit", None),
    }
    assert ("mcp", "mail") not in told
    assert [each["open_in"] for each in found["breakers"]] == [1] and found["audit"]["intact"] is False
    old = next(each for each in found["replicas"] if each["id"] == "wrk_old")
    assert (old["alive"], old["version"], old["runs"], old["traffic"], old["pools"]) == (
        True,
        None,
        None,
        None,
        [],
    )
    dead = next(each for each in found["replicas"] if each["id"] == "wrk_dead")
    assert dead["alive"] is False and dead["lease_seconds"] < -50


def test_without_the_database_the_rest_is_told(
    make: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make()
    services = made.extensions["slipway"]

    def away(*_: Any, **__: Any) -> None:
        raise DatabaseUnavailable("The database is away.")

    monkeypatch.setattr(services.infra.db, "query", away)
    monkeypatch.setattr(services.infra.db, "ping", away)
    parts = {"database": {"status": "down", "latency_ms": 1.0}}
    found = services.health.read(parts, whole=True)
    assert found["replicas"] is None and found["runs"] is None and found["stopped_agents"] is None
    assert found["traffic"]["requests"] == 0 and found["disk"]["size_bytes"] > 0
    assert "database" in {each["part"] for each in found["degraded"]}


def test_many_who_look_read_the_database_once(
    make: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make()
    health, read, reads = made.extensions["slipway"].health, standing.read, list[int]()

    def counted(tx: Any) -> standing.Standing:
        reads.append(1)
        return read(tx)

    monkeypatch.setattr(standing, "read", counted)
    monkeypatch.setattr(overview, "KEEP_SECONDS", 600.0)
    with ThreadPoolExecutor(20) as pool:
        states = list(pool.map(lambda _: health.read({}, whole=True), range(60)))
    assert all(state["runs"] == [] for state in states) and len(reads) == 1


def test_every_meaning_names_a_page_with_its_heading() -> None:
    for part, meaning in MEANINGS.items():
        page, _, anchor = meaning.see.partition("#")
        text = (ROOT / "docs" / page).read_text()
        headings = {
            re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
            for line in text.splitlines()
            if line.startswith("#")
        }
        assert not anchor or anchor in headings, part
        assert meaning.means.endswith(".") and meaning.do.endswith("."), part


def test_traffic_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(traffic.time, "monotonic", lambda: now[0])
    seen = traffic.Traffic()
    assert traffic.quantile(seen.last_minute(), 0.5) is None
    for status, seconds in [(200, 0.004)] * 18 + [(503, 0.2), (200, 1_000.0)]:
        seen.note(status, seconds)
        now[0] += 2
    counts = seen.last_minute()
    assert (counts[0], counts[1], len(counts)) == (20, 1, traffic.WIDTH)
    assert traffic.quantile(counts, 0.5) == 0.005 and traffic.quantile(counts, 0.95) == 0.25
    assert traffic.quantile(counts, 1.0) is None, "beyond the last bound"
    now[0] += 60
    assert seen.last_minute() == [0] * traffic.WIDTH
