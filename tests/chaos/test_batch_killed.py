"""`kill -9` of every worker on the way of a batch: each run ends, is answered once, and is paid once at half price."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sqlalchemy as sa

from service.store import holds
from service.store.database import Database
from service.store.schema import batch_items, batches, ledger
from service.usage.ledger import check
from tests.chaos.gate import Gate
from tests.conftest import Model, RedisServer, Slipway, model_server, slipway_server, wait_until
from tests.jobs.house import TaskWorker, until
from tests.usage.house import TABLE

TASKS = 4
SETTINGS = {
    "WEB_CONCURRENCY": "2",
    "THREADS": "12",
    "TASK_CONCURRENCY": "2",
    "BATCH_MAX_SIZE": str(TASKS),
    "BATCH_MAX_WAIT_SECONDS": "5",
    "LEASE_SECONDS": "5",
}


@dataclass
class Place:
    """Service with a task worker, and a gate before its model."""

    server: Slipway
    worker: TaskWorker
    gate: Gate
    model: Model
    db: Database

    def kill(self) -> None:
        """Kill all processes that may hold a batch: workers of Gunicorn and Celery, which their parents replace."""
        for pid in (*self.server.workers(), *self.worker.pool()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def states(self) -> list[str]:
        """Return the states of the stored batch steps."""
        return [row["state"] for row in self.db.query(lambda tx: tx.rows(sa.select(batch_items)))]

    def look_now(self) -> None:
        """Batches are due: a sender that was killed is given two minutes else."""
        self.db.transact(lambda tx: tx.execute(sa.update(batches).values(next_at=0)))


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, scratch: Path, own_redis: RedisServer) -> Iterator[Place]:
    home = scratch / f"batch{abs(hash(request.node.nodeid)) % 10**6}"
    url = f"sqlite:///{home}/slipway.db"
    with ExitStack() as stack:
        if request.param == "postgresql":
            url = _empty(request.getfixturevalue("postgres").url, home.name)
        model = stack.enter_context(model_server())
        gate = stack.enter_context(Gate(model.url).standing())
        server = stack.enter_context(
            slipway_server(home, own_redis.url, gate.url, DATABASE_URL=url, **SETTINGS)
        )
        worker = stack.enter_context(TaskWorker(server.env, home / "worker.log").running())
        db = Database(url.replace("postgresql://", "postgresql+psycopg://"))
        stack.callback(db.close)
        yield Place(server, worker, gate, model, db)


def _empty(server: str, name: str) -> str:
    """Create a database."""
    address = server.replace("postgresql://", "postgresql+psycopg://")
    engine = sa.create_engine(address, isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    return server.replace("/postgres", f"/{name}")


def while_it_is_sent(place: Place) -> None:
    assert place.gate.reached.wait(60)
    assert set(place.states()) == {"sent"} and place.model.stats()["batch_calls"] == 0


def when_the_provider_has_it_and_we_do_not_know(place: Place) -> None:
    assert place.gate.reached.wait(60)
    known = place.db.query(lambda tx: tx.rows(sa.select(batches.c.upstream_id)))
    assert [row["upstream_id"] for row in known] == [None]


def while_the_answers_come(place: Place) -> None:
    assert place.gate.reached.wait(60)
    wait_until(lambda: place.model.stats()["batch_calls"] == TASKS, "the answers")
    assert set(place.states()) == {"sent"}


def when_the_answers_are_kept_and_no_run_has_ended(place: Place) -> None:
    wait_until(lambda: "done" in place.states(), "the first answer")


@pytest.mark.parametrize(
    ("held", "moment"),
    [
        (("POST", "/batches", "request"), while_it_is_sent),
        (("POST", "/batches", "answer"), when_the_provider_has_it_and_we_do_not_know),
        (("GET", "/results", "answer"), while_the_answers_come),
        (None, when_the_answers_are_kept_and_no_run_has_ended),
    ],
)
def test_killed_worker_resumes_a_batch_step(place: Place, held: Any, moment: Callable[[Place], None]) -> None:
    if held is not None:
        place.gate.hold(*held)
    with place.server.client() as client:
        run_ids = [_queued(client, number) for number in range(TASKS)]
        moment(place)
        place.kill()
        place.gate.open()
        assert place.states() != [], "every run had ended: the kill met none"
        ended = until(lambda: _ended(place, client, run_ids), "the end of every run", 180)
    for number, run in enumerate(ended):
        assert run["status"] == "succeeded" and str(1000 + number) in run["output"], run
    _each_is_paid_once(place, ended)


def _queued(client: httpx2.Client, number: int) -> str:
    body = {"input": f"What is my number? It is {1000 + number}.", "priority": "batch", "tier": "medium"}
    answer = client.post("/v1/agents/assistant/tasks", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


def _ended(place: Place, client: httpx2.Client, run_ids: list[str]) -> list[dict[str, Any]] | None:
    place.look_now()
    runs = [client.get(f"/v1/runs/{run_id}").json() for run_id in run_ids]
    return runs if all(run["status"] in ("succeeded", "failed", "cancelled") for run in runs) else None


def _each_is_paid_once(place: Place, ended: list[dict[str, Any]]) -> None:
    """Check one provider answer per step, each settled at half of 2 (input) and 10 dollars (output) a million."""
    stats = place.model.stats()
    assert (stats["batch_calls"], stats["calls"]) == (TASKS, 0)
    assert place.db.query(holds.every) == [] and place.states() == []
    for run in ended:
        mine = (ledger.c.run_id == run["run_id"], ledger.c.account == "upstream")
        [row] = place.db.query(lambda tx, mine=mine: tx.rows(sa.select(ledger).where(*mine)))
        assert row["basis"] == "exact"
        assert row["amount_nano"] == row["input_tokens"] * 1_000 + row["output_tokens"] * 5_000 > 0
    books = check(place.db, TABLE)
    assert (books.faults, books.held) == ([], 0)
