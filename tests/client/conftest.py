"""A Slipway with a task worker and an agent that asks, and clients of the package."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from slipway_client import Login, Slipway, retry

from tests import conftest as parts
from tests.conftest import ROOT, Model, redis_in
from tests.jobs.house import TaskWorker
from tests.web.office import office_server

BUNDLED = ("assistant", "analyst", "support")


@pytest.fixture(scope="session")
def server(scratch: Path, model: Model) -> Iterator[parts.Slipway]:
    """One for all tests that leave it as it was: bundled agents, and `clerk`, whose calls wait for a person."""
    home = scratch / "client"
    for name in BUNDLED:
        shutil.copytree(ROOT / "agents" / name, home / "agents" / name)
    with (
        redis_in(scratch / "client-redis") as redis,
        office_server(home, redis.url, model.url, TASK_CONCURRENCY="1") as running,
        TaskWorker(running.env, running.log.with_name("worker.log")).running(),
    ):
        yield running


@pytest.fixture
def client(server: parts.Slipway) -> Iterator[Slipway]:
    with Slipway(login=Login("demo", "demo-password"), base_url=server.url) as signed_in:
        yield signed_in


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short pauses: what is tested is the order of things, not the waiting."""
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(retry, "RECONNECT_PAUSE", 0.02)
    monkeypatch.setattr(retry, "LONGEST_PAUSE", 0.5)
