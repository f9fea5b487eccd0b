"""A run that its own process holds and does not drive is let go of, and ends as a dead letter at last."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from config import load
from service import wiring
from service.runs.keeper import UNDRIVEN
from service.store import runs as rows
from service.store.schema import metadata
from service.types import Caller, RunRequest
from tests.conftest import Model, RedisServer


@pytest.fixture
def services(tmp_path: Path, redis_server: RedisServer, model: Model) -> Iterator[wiring.Services]:
    environ = {
        "APP_ENV": "testing",
        "SLIPWAY_HOME": str(tmp_path),
        "REDIS_URL": redis_server.url,
        "ANTHROPIC_BASE_URL": model.url,
    }
    services = wiring.build(load(environ), kind="cli")
    metadata.create_all(services.db.engine)
    services.users.create("ada", "ada-password")
    yield services
    services.close()


def test_a_run_that_nobody_here_drives_is_free_for_others(services: wiring.Services) -> None:
    keeper, user = services.keeper, services.users.by_name("ada")
    assert user is not None
    asked = RunRequest("assistant", ({"role": "user", "content": "x"},))
    run = services.runs.queue(Caller(user.id, "ada", "user"), asked, None, "req-1").run
    keeper._renew()
    with services.db.begin() as tx:  # claimed by this process, whose thread then died
        assert rows.claim(tx, run.id, keeper._worker_id)
    for now in (0.0, UNDRIVEN):  # it may still be on its way
        keeper._disown(now)
        assert _abandoned(services) == []
    keeper._disown(UNDRIVEN + 1)
    assert _abandoned(services) == [run.id]
    assert services.driver.take_up(run.id)
    assert (services.watch.get(run.id).status, services.watch.get(run.id).losses) == ("succeeded", 1)


def _abandoned(services: wiring.Services) -> list[str]:
    return [row["id"] for row in services.db.query(lambda tx: rows.abandoned(tx, 10))]
