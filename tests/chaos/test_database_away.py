"""PostgreSQL missing at start or killed later: processes wait, log the cause once, and continue."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.conftest import Postgres
from tests.conftest import PYTHON, ROOT, Model, RedisServer, Slipway, migrate, slipway_server, wait_until
from tests.jobs.house import TaskWorker

SETTINGS = {"WEB_CONCURRENCY": "2", "THREADS": "8", "TASK_CONCURRENCY": "1"}
LOGIN = {"username": "demo", "password": "demo-password"}


@pytest.fixture
def own_postgres(scratch: Path) -> Iterator[Postgres]:
    """Not started."""
    scratch.chmod(0o755)
    server = Postgres(Path(tempfile.mkdtemp(prefix="away", dir=scratch)))
    yield server
    server.stop()


def told(server: Slipway, event: str) -> list[str]:
    """Return the causes in a log event of the web workers."""
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if f'"{event}"' in line]
    return [line.get("cause", "") for line in lines]


def test_processes_started_without_the_database_wait(
    scratch: Path, own_postgres: Postgres, redis_server: RedisServer, model: Model
) -> None:
    own_postgres.start()
    url = own_postgres.url.replace("slipway@", "slipway:s3cr3t-word@")
    migrate({"APP_ENV": "testing", "DATABASE_URL": url})
    own_postgres.kill()
    home = scratch / "away"
    settings = {**SETTINGS, "DATABASE_URL": url}
    with slipway_server(home, redis_server.url, model.url, migrated=False, **settings) as server:
        task = TaskWorker({**server.env}, server.log.with_name("worker.log"))
        with task.running(), server.visitor() as visitor:
            wait_until(lambda: len(server.workers()) == 2, "both workers")
            workers = server.workers()
            assert visitor.get("/ready").status_code == 503
            for answer in (visitor.post("/v1/auth/login", json=LOGIN), visitor.get("/ready")):
                assert (answer.status_code, int(answer.headers["Retry-After"]) >= 1) == (503, True)
            assert visitor.post("/v1/auth/login", json=LOGIN).json()["code"] == "database_unavailable"
            wait_until(task.pool, "the pool")
            pool = task.pool()
            own_postgres.start()
            wait_until(lambda: visitor.get("/ready").status_code == 200, "the database")
            wait_until(
                lambda: visitor.post("/v1/auth/login", json=LOGIN).status_code == 200, "the first admin"
            )
            with server.client() as client:
                assert client.post("/v1/agents/assistant/invoke", json={"input": "Hello"}).status_code == 200
                queued = client.post("/v1/agents/assistant/tasks", json={"input": "Later"})
                run = f"/v1/runs/{queued.json()['run_id']}"
                wait_until(lambda: client.get(run).json()["status"] == "succeeded", "the task")
            assert (server.workers(), task.pool()) == (workers, pool)
        causes = told(server, "database_away")
        assert len(causes) <= 3 * len(workers)  # refused; perhaps starting up, and lost: once a process each
        assert "connection refused: no server listens there" in causes
        assert len(told(server, "database_back")) >= 1
        for log in (server.log, task.log):
            assert "s3cr3t-word" not in log.read_text() and "Traceback" not in log.read_text()


def test_database_killed_twice_loses_nothing(
    scratch: Path, own_postgres: Postgres, redis_server: RedisServer, model: Model
) -> None:
    own_postgres.start()
    settings = {**SETTINGS, "DATABASE_URL": own_postgres.url}
    with (
        slipway_server(scratch / "killed", redis_server.url, model.url, **settings) as server,
        server.client() as client,
    ):
        wait_until(lambda: len(server.workers()) == 2, "both workers")
        workers = server.workers()
        for number in range(3):
            own_postgres.kill()
            own_postgres.start()
            answer = client.post("/v1/agents/assistant/invoke", json={"input": f"Question {number}"})
            assert answer.status_code == 200, answer.text
        assert server.workers() == workers


def test_migrations_without_the_database_end_with_one_line(own_postgres: Postgres) -> None:
    environ = {"APP_ENV": "testing", "DATABASE_URL": own_postgres.url}
    done = subprocess.run(
        [PYTHON, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
    )
    line = "The database cannot be migrated: connection refused: no server listens there.\n"
    assert (done.returncode, done.stderr) == (1, line)
