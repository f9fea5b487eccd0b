"""Alive, ready, and what each part's state does to that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from flask import Flask

from service.web import drain
from tests.conftest import Model, RedisServer, Slipway
from tests.made import app_in, close


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
    drain.watch(lambda: False)
    yield
    drain.watch(lambda: True)


def ready(made: Flask) -> tuple[int, dict[str, Any]]:
    answer = made.test_client().get("/ready")
    return answer.status_code, answer.get_json()


def test_without_redis_model_and_worker_it_is_degraded_and_ready(make: Callable[..., Flask]) -> None:
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


def test_without_its_database_it_is_not_ready(make: Callable[..., Flask], tmp_path: Path) -> None:
    made = make()
    made.extensions["slipway"].db.close()
    (tmp_path / "slipway.db").rename(tmp_path / "away")
    (tmp_path / "slipway.db").mkdir()  # what was a file cannot be opened now
    answer = made.test_client().get("/ready")
    assert answer.status_code == 503 and answer.get_json()["database"]["status"] == "down"
    assert int(answer.headers["Retry-After"]) >= 1
    assert made.test_client().get("/health").status_code == 200


def test_while_it_stops_it_is_not_ready_and_alive(make: Callable[..., Flask], stopping: None) -> None:
    made = make()
    status, parts = ready(made)
    assert (status, parts["status"], parts["database"]["status"]) == (503, "draining", "ok")
    assert made.test_client().get("/health").get_json() == {"status": "ok"}


def test_metrics_of_all_workers(slipway: Slipway, client: httpx2.Client) -> None:
    def counted() -> float:
        lines = client.get("/metrics").text.splitlines()
        (line,) = [
            line
            for line in lines
            if line.startswith("slipway_http_requests_total") and "/openapi.json" in line
        ]
        return float(line.rpartition(" ")[2])

    client.get("/openapi.json")
    before = counted()
    for _ in range(8):  # whichever worker takes them
        client.get("/openapi.json")
    assert {counted() for _ in range(4)} == {before + 8}
