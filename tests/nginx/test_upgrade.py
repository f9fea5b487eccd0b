"""Upgrade from an earlier state of the code, and back, under load: both serve side by side, and nothing fails."""

from __future__ import annotations

import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.conftest import PYTHON, ROOT, Slipway, free_port, model_server, process, redis_in, wait_until
from tests.nginx.edge import Edge
from tests.nginx.pair import database
from tests.processes import ALEMBIC
from tests.web.office import Office, write_agents

OLD = "b5dd22fe3088832020b54a9119626d2b813f90d5"  # revision 0037; a release's tag, once there is one
ASKING = 8  # clients that ask one question after another
REQUESTS = 2_000  # of them all

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def old(scratch: Path) -> Path:
    """The earlier state of the code."""
    found = subprocess.run(
        ["git", "-C", str(ROOT), "archive", "--format=tar", OLD], capture_output=True, timeout=60
    )
    if found.returncode:
        pytest.skip("this clone has no history that goes back to the earlier state")
    folder = scratch / "earlier"
    with tarfile.open(fileobj=BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


@dataclass
class Replica:
    """One address, at which a process of one state of the code serves after another."""

    env: dict[str, str]
    stack: ExitStack
    slipway: Slipway = field(init=False)

    def start(self, code: Path) -> None:
        log = Path(self.env["SLIPWAY_HOME"]) / f"slipway-{self.env['PORT']}.log"
        out = self.stack.enter_context(log.open("ab"))
        command = [PYTHON, "-m", "gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
        child = self.stack.enter_context(process(command, self.env, cwd=code, stdout=out, stderr=out))
        self.slipway = Slipway(int(self.env["PORT"]), child, log, self.env)
        wait_until(lambda: httpx2.get(f"{self.slipway.url}/ready").status_code == 200, "the replica")

    def replace(self, code: Path) -> None:
        self.slipway.child.terminate()
        self.slipway.child.wait(40)
        self.start(code)


class Town:
    """Clients that ask through nginx until they are told to stop; each answer is kept."""

    def __init__(self, clients: list[httpx2.Client]) -> None:
        self.failed: list[str] = []
        self.count = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(client,), daemon=True) for client in clients
        ]
        for thread in self._threads:
            thread.start()

    def _ask(self, client: httpx2.Client) -> None:
        with client:
            while not self._stop.is_set():
                question = {"input": f"Question {uuid4()}", "cache": "bypass"}
                try:
                    answer = client.post("/v1/agents/sloth/invoke", json=question)
                    fault = "" if answer.status_code == 200 else f"{answer.status_code} {answer.text}"
                    fault = fault or ("" if answer.json()["status"] == "succeeded" else answer.text)
                except httpx2.HTTPError as error:
                    fault = repr(error)
                with self._lock:
                    self.count += 1
                    self.failed += [fault] if fault else []

    def more(self, requests: int) -> None:
        """Wait until so many more have been answered."""
        goal = self.count + requests
        wait_until(lambda: self.count >= goal, f"{requests} more answers", timeout=300)

    def __enter__(self) -> Town:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)


@pytest.fixture
def house(scratch: Path, old: Path) -> Iterator[tuple[list[Replica], Edge]]:
    """Two replicas of the earlier state, on its schema, behind nginx."""
    home = scratch / "upgrade"
    home.mkdir()
    with ExitStack() as stack:
        redis = stack.enter_context(redis_in(home / "redis"))
        model = stack.enter_context(model_server())
        common = {
            "APP_ENV": "testing",
            "SLIPWAY_HOME": str(home),
            "DATABASE_URL": stack.enter_context(database("postgresql", home)),
            "REDIS_URL": redis.url,
            "ANTHROPIC_BASE_URL": model.url,
            "AGENTS_DIR": write_agents(home),
            "BOOTSTRAP_USERNAME": "demo",
            "BOOTSTRAP_PASSWORD": "demo-password",
            "LOG_FORMAT": "json",
            "TRUSTED_PROXIES": "1",
            "WEB_CONCURRENCY": "2",
            "THREADS": "16",
            "LIMIT_RUNS": "100000/minute",
            "GRACEFUL_TIMEOUT": "6",
        }
        migrate(old, common)
        replicas = [Replica({**common, "PORT": str(free_port())}, stack) for _ in range(2)]
        for replica in replicas:
            replica.start(old)
        edge = stack.enter_context(Edge(home / "nginx", [int(one.env["PORT"]) for one in replicas]))
        yield replicas, edge


def migrate(code: Path, env: dict[str, str]) -> None:
    with process(ALEMBIC, env, cwd=code) as child:
        assert child.wait(300) == 0, "the database was not migrated"


def waiting(office: Office) -> dict[str, Any]:
    """Start a run that waits for a person, and a task whose answer takes longer than a replica has to end."""
    asked = office.ask("clerk", uuid4().hex)
    assert asked["status"] == "waiting_approval", asked
    slow = {"input": f"[offline tokens=400 token_ms=40] Question {uuid4()}", "cache": "bypass"}
    task = office.admin.post("/v1/agents/sloth/tasks", json=slow)
    assert task.status_code == 202, task.text
    approval = office.question(asked["run_id"])["id"]
    return {"approval": approval, "runs": [asked["run_id"], task.json()["run_id"]]}


def finish(office: Office, begun: dict[str, Any]) -> None:
    """Approve the run that waits; both end, each with one line and one last event."""
    decided = office.decide(begun["approval"], "approve")
    assert decided.status_code == 200, decided.text
    for run_id in begun["runs"]:
        assert office.end(run_id)["status"] == "succeeded"
        names = [name for _, name, _ in office.events(run_id)]
        assert [name for name in names if name in ("run.completed", "run.failed")] == ["run.completed"]


def test_upgrade_and_roll_back_under_load(house: tuple[list[Replica], Edge], old: Path) -> None:
    replicas, edge = house
    common = replicas[0].env
    with closing(replicas[0].slipway.client()) as direct:
        token = {"Authorization": direct.headers["Authorization"]}

    def client() -> httpx2.Client:
        return httpx2.Client(base_url=edge.url, timeout=60, trust_env=False, headers=token)

    with client() as admin:
        office = Office(replicas[0].slipway, admin, Path(common["SLIPWAY_HOME"]) / "lines")
        with Town([client() for _ in range(ASKING)]) as town:
            before = waiting(office)
            town.more(REQUESTS // 8)
            migrate(ROOT, common)
            town.more(REQUESTS // 8)
            for replica in replicas:
                replica.replace(ROOT)
                town.more(REQUESTS // 8)
            finish(office, before)
            after = waiting(office)
            for replica in replicas:
                replica.replace(old)
                town.more(REQUESTS // 8)
            finish(office, after)
            town.more(max(0, REQUESTS - town.count))
        assert (town.failed, town.count >= REQUESTS) == ([], True)
        for status in ("running", "queued", "waiting_approval"):
            assert admin.get("/v1/runs", params={"status": status}).json()["data"] == []
