"""Alive, ready, and what each part's state does to that."""

from __future__ import annotations

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

from service import __version__
from service.observe import probes
from service.web import lifecycle
from tests.conftest import Model, RedisServer, redis_in, wait_until
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
