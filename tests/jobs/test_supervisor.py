"""Supervisor of a worker: releases runs without a thread, stops threads of lost runs, sweeps."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from config import load
from service import wiring
from service.errors import DatabaseUnavailable
from service.runs.recovery.supervisor import UNDRIVEN, ProcessRole
from service.runs.slots import Handle
from service.store import runs as rows
from service.store import workers
from service.types import Caller, RunRequest
from tests.conftest import Model, RedisServer, wait_until
from tests.tables import create_tables


@pytest.fixture
def services(tmp_path: Path, redis_server: RedisServer, model: Model) -> Iterator[wiring.Services]:
    environ = {
        "APP_ENV": "testing",
        "SLIPWAY_HOME": str(tmp_path),
        "REDIS_URL": redis_server.url,
        "ANTHROPIC_BASE_URL": model.url,
    }
    services = wiring.build(load(environ), ProcessRole("cli"))
    create_tables(services.infra.db.engine)
    services.auth.users.create("ada", "ada-password")
    yield services
    services.close()


def test_run_without_a_local_thread_is_released(services: wiring.Services) -> None:
    supervisor, user = services.runs.supervisor, services.auth.users.by_name("ada")
    assert user is not None
    asked = RunRequest("assistant", ({"role": "user", "content": "x"},))
    run = services.runs.start.queue(Caller(user.id, "ada", "user"), asked, None, "req-1").run
    supervisor._renew()
    with services.infra.db.begin() as tx:  # claimed by this process, whose thread then died
        assert rows.claim(tx, run.id, supervisor._worker_id)
    for now in (0.0, UNDRIVEN):  # it may still be on its way
        supervisor._disown(now)
        assert _abandoned(services) == []
    supervisor._disown(UNDRIVEN + 1)
    assert _abandoned(services) == [run.id]
    assert services.runs.execution.take_up(run.id)
    assert (services.runs.queries.get(run.id).status, services.runs.queries.get(run.id).losses) == (
        "succeeded",
        1,
    )


def _abandoned(services: wiring.Services) -> list[str]:
    return [row["id"] for row in services.infra.db.query(lambda tx: rows.abandoned(tx, 10))]


def _claimed(services: wiring.Services, worker_id: str) -> str:
    """Create a run just claimed by this worker, in its first attempt."""
    user = services.auth.users.by_name("ada")
    assert user is not None
    asked = RunRequest("assistant", ({"role": "user", "content": "x"},))
    run = services.runs.start.queue(Caller(user.id, "ada", "user"), asked, None, "req-1").run
    services.infra.db.transact(lambda tx: rows.claim(tx, run.id, worker_id))
    return run.id


def test_thread_stops_when_another_worker_owns_its_run(services: wiring.Services) -> None:
    supervisor = services.runs.supervisor
    supervisor._renew()
    run_id = _claimed(services, supervisor._worker_id)
    with supervisor._slots.executing(Handle(run_id, 60, 1)) as handle, ExitStack() as held:
        held.enter_context(supervisor._slots.executing(Handle("run_that_is_not_in_the_database_yet", 60)))
        supervisor._tick(0.0)
        assert handle.reason is None
        services.infra.db.transact(
            lambda tx: workers.retire(tx, supervisor._worker_id)
        )  # as if its lease had run out
        assert services.infra.db.transact(lambda tx: rows.claim(tx, run_id, "wrk_another"))
        supervisor._tick(0.0)
        assert handle.reason == "lost"
        assert [one.reason for one in supervisor._slots.all() if one is not handle] == [None]


def test_worker_back_from_an_outage_waits_a_lease_before_recovery(services: wiring.Services) -> None:
    supervisor = services.runs.supervisor
    supervisor._renew()
    run_id = _claimed(services, "wrk_another")  # it holds no lease
    began = supervisor._cut_off_at
    supervisor._recover(began + supervisor._lease * 0.9)
    assert _abandoned(services) == [run_id]
    supervisor._renewed_at -= (
        supervisor._lease * 1.5
    )  # as where a process is stopped, or its database does not answer
    supervisor._renew()
    assert supervisor._cut_off_at > began
    supervisor._recover(began + supervisor._lease)
    assert _abandoned(services) == [run_id]
    supervisor._recover(supervisor._cut_off_at + supervisor._lease)
    wait_until(lambda: services.runs.queries.get(run_id).status == "succeeded", "its end")


def test_failed_renewal_counts_as_cut_off(services: wiring.Services) -> None:
    supervisor = services.runs.supervisor
    supervisor._renew()
    before = supervisor._cut_off_at
    with closing(
        sqlite3.connect(services.settings.slipway_home / "slipway.db", isolation_level=None)
    ) as locks:
        locks.execute("BEGIN EXCLUSIVE")
        with pytest.raises(DatabaseUnavailable):
            supervisor._renew()
    assert supervisor._cut_off_at > before
