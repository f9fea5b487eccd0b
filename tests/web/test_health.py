"""Alive, ready, and what each part's state does to that."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient

from service import __version__
from service.errors import DatabaseUnavailable
from service.health import overview
from service.health.meanings import MEANINGS
from service.observe import probes, traffic
from service.store import standing, workers
from service.types import DEFAULT_WORKSPACE
from service.web import lifecycle
from tests.conftest import ROOT, Model, RedisServer, redis_in, wait_until
from tests.made import app_in, close
from tests.usage.conftest import postgres_url

__all__ = ["postgres_url"]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    made: list[Flask] = []

    def one(**environ: str) -> Flask:
        made.append(app_in(tmp_path, **environ))
        return made[-1]

    yield one
    for each in made:
        close(each)


@pytest.fixture
def stopping() -> Iterator[None]:
    lifecycle.watch(lambda: False)
    yield
    lifecycle.watch(lambda: True)


def ready(made: Flask) -> tuple[int, dict[str, Any]]:
    answer = made.test_client().get("/ready")
    return answer.status_code, answer.get_json()


def test_ready_is_degraded_without_redis_model_and_worker(make: Callable[..., Flask]) -> None:
    status, parts = ready(make())
    assert (status, parts["status"]) == (200, "degraded")
    assert {name: parts[name]["status"] for name in ("database", "redis", "worker")} == {
        "database": "ok",
        "redis": "degraded",
        "worker": "degraded",
    }


def test_each_application_looks_at_its_own_parts(
    make: Callable[..., Flask], redis_server: RedisServer, model: Model
) -> None:
    model.reset()
    _, without = ready(make())
    _, parts = ready(make(REDIS_URL=redis_server.url, ANTHROPIC_BASE_URL=model.url))
    assert {without[name]["status"] for name in ("redis", "model")} == {"degraded"}
    assert {parts[name]["status"] for name in ("redis", "model")} == {"ok"}
    assert parts["redis"]["latency_ms"] >= 0


def test_why_redis_is_degraded(make: Callable[..., Flask], scratch: Path) -> None:
    with redis_in(scratch / "ready-redis") as server:
        made = make(REDIS_URL=server.url)
        assert ready(made)[1]["redis"].keys() == {"status", "latency_ms"}
    made = make()
    assert ready(made)[1]["redis"]["reason"] == "away"
    with redis_in(scratch / "ready-redis", "--maxmemory", "1") as server:
        status, parts = ready(make(REDIS_URL=server.url))
        assert (status, parts["status"], parts["redis"]["reason"]) == (200, "degraded", "full")


def test_ready_is_503_without_the_database(make: Callable[..., Flask], tmp_path: Path) -> None:
    made = make()
    made.extensions["slipway"].infra.db.close()
    (tmp_path / "slipway.db").rename(tmp_path / "away")
    (tmp_path / "slipway.db").mkdir()  # what was a file cannot be opened now
    answer = made.test_client().get("/ready")
    assert answer.status_code == 503 and answer.get_json()["database"]["status"] == "down"
    assert int(answer.headers["Retry-After"]) >= 1
    assert made.test_client().get("/health").status_code == 200


def test_draining_process_is_alive_and_not_ready(make: Callable[..., Flask], stopping: None) -> None:
    made = make()
    status, parts = ready(made)
    assert (status, parts["status"], parts["database"]["status"]) == (503, "draining", "ok")
    assert made.test_client().get("/health").get_json() == {"status": "ok", "version": __version__}


# --- parts that hang ------------------------------------------------------------------------------


class Hanging:
    """A TCP port on the way to a part, or in its place: once `freeze` is called nothing passes, and nothing ends."""

    def __init__(self, unix_socket: str = "") -> None:
        self._target = unix_socket
        self._go_on = threading.Event()
        self._go_on.set()
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._go_on.clear()

    def thaw(self) -> None:
        self._go_on.set()

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._go_on.set()
        for one in self._open:
            one.close()

    @property
    def connections(self) -> int:
        return len(self._open)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                self._open.append(near)
                if self._target:
                    far = socket.socket(socket.AF_UNIX)
                    far.connect(self._target)
                    self._open.append(far)
                    for pair in ((near, far), (far, near)):
                        threading.Thread(target=self._pump, args=pair, daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                self._go_on.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def hanging() -> Iterator[Callable[..., Hanging]]:
    made: list[Hanging] = []

    def one(unix_socket: str = "") -> Hanging:
        made.append(Hanging(unix_socket))
        return made[-1]

    yield one
    for each in made:
        each.stop()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hang until every caller has an answer: no answer waited for the hanging part."""
    assert probes.SECONDS <= 1.5, "two seconds are promised"
    monkeypatch.setattr(probes, "SECONDS", 4.0)  # room for all callers on a busy machine


def readiness(made: Flask, callers: int) -> list[tuple[int, dict[str, Any]]]:
    """Ask from so many callers at once; return the answers."""
    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(lambda _: ready(made), range(callers)))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("callers", [1, 20])
def test_hanging_redis_and_model_do_not_delay_ready(
    make: Callable[..., Flask], hanging: Callable[..., Hanging], callers: int
) -> None:
    redis, model = hanging(), hanging()
    made = make(
        REDIS_URL=f"redis://127.0.0.1:{redis.port}", ANTHROPIC_BASE_URL=f"http://127.0.0.1:{model.port}"
    )
    for _ in range(2):
        for status, parts in readiness(made, callers):
            assert (status, parts["status"], parts["database"]["status"]) == (200, "degraded", "ok")
            assert parts["redis"]["status"] == parts["model"]["status"] == "degraded"
    assert model.connections <= 2, "one look at it for all who ask"
    assert len([one for one in threading.enumerate() if one.name == "probe"]) <= 8


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("callers", [1, 20])
def test_silent_resolver_does_not_delay_ready(
    make: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch, callers: int
) -> None:
    over, ended = threading.Event(), list[bool]()

    def look_up(*_: object, **__: object) -> list[Any]:
        ended.append(over.wait(30))
        raise socket.gaierror(socket.EAI_AGAIN, "over")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    made = make(REDIS_URL="redis://redis.example:6379", ANTHROPIC_BASE_URL="https://model.example")
    told = readiness(made, callers)
    assert ended == []
    over.set()
    for status, parts in told:
        assert (parts["redis"]["status"], parts["model"]["status"]) == ("degraded", "degraded")
        assert status == 200 or callers > 1, "a busy machine may keep some callers from the database"


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("callers", [1, 20])
def test_hanging_database_is_down_and_recovers(
    make: Callable[..., Flask], hanging: Callable[..., Hanging], postgres_url: str, callers: int
) -> None:
    folder = parse_qs(urlsplit(postgres_url).query)["host"][0]
    way = hanging(f"{folder}/.s.PGSQL.5432")
    made = make(DATABASE_URL=f"postgresql://postgres@127.0.0.1:{way.port}/postgres")
    assert ready(made)[1]["database"]["status"] == "ok"
    way.freeze()
    for _ in range(2):
        told = readiness(made, callers)
        assert {(status, parts["database"]["status"]) for status, parts in told} == {(503, "down")}
    way.thaw()
    wait_until(lambda: ready(made)[1]["database"]["status"] == "ok", "the database")
    assert made.test_client().get("/health").status_code == 200


def test_a_probe_that_hangs_for_good_is_made_anew_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "SECONDS", 0.01)
    monkeypatch.setattr(probes, "LOST_SECONDS", 0.0)
    over, asked = threading.Event(), list[int]()

    def check() -> None:
        asked.append(1)
        over.wait(20)

    probe = probes.Probe(check, "down")
    for _ in range(20):
        assert probe.state(probe.begin())["status"] == "down"
    assert len(asked) == probes.MAX_THREADS
    over.set()
    wait_until(lambda: probe.state(probe.begin())["status"] == "ok", "the check")


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
