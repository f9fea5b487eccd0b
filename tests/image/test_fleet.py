"""Four replicas under load: killed, restarted, re-addressed, upgraded with a migration and rolled back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
import pytest

from service.store.fitness import revisions
from tests.conftest import free_port, wait_until
from tests.image.engine import RIG, ROOT, Compose, composed, docker
from tests.image.test_compose import address, signed_in

FILES = ["docker-compose.yml", "docker-compose.override.yml", *(["stand-ins.yml"] if RIG else [])]
REPLICAS = ("slipway-1", "slipway-2", "slipway-more")
AT_LEAST, ASKING = 2000, 6  # requests in all, and clients that ask at a time
REPLY = {"input": "Reply to the mail about the team offsite: Thursday suits me.", "cache": "bypass"}
MIGRATION = '''"""runs: a column of the next version"""

import sqlalchemy as sa

from migrations import gentle

revision, down_revision, branch_labels, depends_on = "9999", "{before}", None, None
OLDEST_CODE = "0002"


def upgrade() -> None:
    gentle.add_columns("runs", sa.Column("berth", sa.String(16)))
    gentle.create_index("ix_runs_berth", "runs", ["berth"])
'''

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1500),
]  # some thirty containers start, one after the other


@pytest.fixture(scope="module")
def fleet(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compose]:
    settings = {
        "COMPOSE_FILE": ":".join(FILES),  # for scripts/roll.sh, which names none
        "COMPOSE_PROFILES": "scale,multi-agent",
        "SLIPWAY_REPLICAS": "2",
        "SLIPWAY_PORT": str(free_port()),
        "MAIL_URL": "",  # tests/conftest.py sets both for servers of this machine
        "CALENDAR_URL": "",
        "WEB_CONCURRENCY": "1",
        "LIMIT_RUNS": "none",
        "REMOTE_AGENTS": "research=http://research:9100/research,writer=http://writer:9100/writer",
        "REMOTE_HOSTS": "research:9100,writer:9100",
        "REMOTE_CREDENTIALS": "research:9100=demo-only,writer:9100=demo-only",
    }
    with composed(tmp_path_factory.mktemp("fleet"), *FILES[:2], **settings) as compose:
        (compose.folder / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "roll.sh", compose.folder / "scripts")
        start = ("up", "--detach", "--no-build", "--wait", "--wait-timeout", "400")
        if RIG:  # where a container has no health status for a moment, which Compose takes for an end
            compose(*start, check=False, timeout=500)
        compose(*start, timeout=500)
        yield compose


@pytest.fixture(scope="module")
def admin(fleet: Compose) -> Iterator[httpx2.Client]:
    with closing(signed_in(address(fleet), "demo", "demo-password")) as client:
        yield client


@contextmanager
def version(image: str, tag: str, inside: str, text: str) -> Iterator[str]:
    """The image with one file more or another one, under a tag of its own."""
    with TemporaryDirectory() as folder:
        (Path(folder) / "file").write_text(text)
        (Path(folder) / "Dockerfile").write_text(f"FROM {image}\nCOPY file /app/{inside}\n")
        docker("build", "--tag", f"slipway:{tag}", folder)
    try:
        yield tag
    finally:
        docker("rmi", "--force", f"slipway:{tag}", check=False)


def containers(fleet: Compose, service: str) -> list[str]:
    return fleet("ps", "--quiet", service).split()


def inspected(container: str, what: str) -> str:
    return docker("inspect", "--format", f"{{{{{what}}}}}", container).stdout.strip()


def roll(fleet: Compose, to: str, status: int = 0) -> str:
    """Run scripts/roll.sh as an operator does: the version is that of `.env`, not of the shell."""
    env = {**os.environ, **fleet.env}
    env.pop("SLIPWAY_TAG", None)
    done = subprocess.run(
        ["scripts/roll.sh", to],
        check=False,
        cwd=fleet.folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=900,
    )
    said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.returncode == status, f"{fleet.logs()}\n{said}"
    kept = dict(re.findall(r"(?m)^(\w+)=(.*)$", (fleet.folder / ".env").read_text()))
    fleet.env["SLIPWAY_TAG"] = kept["SLIPWAY_TAG"]
    return said


class Load:
    """Clients that ask without a pause; `failed` is what was no answer of a run that succeeded."""

    def __init__(self, client: httpx2.Client) -> None:
        self.url, self.headers = str(client.base_url), {"Authorization": client.headers["Authorization"]}
        self.over = threading.Event()
        self.asked, self.failed = 0, list[str]()
        self._count = threading.Lock()

    def ask(self, number: int) -> None:
        with httpx2.Client(base_url=self.url, headers=self.headers, timeout=120, trust_env=False) as client:
            while not self.over.is_set():
                with self._count:
                    self.asked += 1
                    body = {"input": f"Client {number} asks {self.asked}", "cache": "bypass"}
                fault = self._fault(client, body)
                if fault:
                    self.failed.append(fault)

    def _fault(self, client: httpx2.Client, body: dict[str, str]) -> str:
        try:
            answer = client.post("/v1/agents/assistant/invoke", json=body)
        except httpx2.HTTPError as error:
            return repr(error)
        good = answer.status_code == 200 and answer.json()["status"] == "succeeded"
        return "" if good else f"{answer.status_code} {answer.text[:500]}"

    def more(self, count: int) -> None:
        """Wait until so many more requests were answered."""
        goal = self.asked + count
        wait_until(lambda: self.asked >= goal, f"{count} more answers", 600)


@contextmanager
def loaded(client: httpx2.Client) -> Iterator[Load]:
    load = Load(client)
    threads = [threading.Thread(target=load.ask, args=(number,), daemon=True) for number in range(ASKING)]
    for thread in threads:
        thread.start()
    try:
        yield load
    finally:
        load.over.set()
        for thread in threads:
            thread.join(130)


def decided(client: httpx2.Client, run_id: str) -> dict[str, Any]:
    """Approve what the run waits for, until it ends."""

    def ended() -> dict[str, Any] | None:
        run: dict[str, Any] = client.get(f"/v1/runs/{run_id}").json()
        for approval in run.get("approvals") or []:
            client.post(f"/v1/approvals/{approval}", json={"decision": "approve"})
        return run if run["status"] in ("succeeded", "failed", "cancelled") else None

    found: dict[str, Any] = wait_until(ended, "the end of the approved run", 120)
    return found


def waiting(client: httpx2.Client) -> str:
    """Start a run that waits for an approval; a replica that has just started may not have the mail server yet."""

    def asked() -> str | None:
        run = client.post("/v1/agents/concierge/invoke", json=REPLY).json()
        return str(run["run_id"]) if run["status"] == "waiting_approval" else None

    return str(wait_until(asked, "a run that waits", 120))


def test_all_is_healthy_and_every_door_answers(fleet: Compose, admin: httpx2.Client) -> None:
    """Sign-in, answer, stream, task and approval, through nginx; agents served alone among them."""
    for service in (*REPLICAS, "nginx", "redis", "postgres", "research", "writer", "mail", "calendar"):
        for container in containers(fleet, service):
            assert inspected(container, ".State.Health.Status") == "healthy", service
    assert len([each for service in REPLICAS for each in containers(fleet, service)]) == 4
    wait_until(lambda: admin.get("/ready").json()["status"] == "ok", "database, Redis, model and worker")
    key = admin.post("/v1/auth/keys", json={"name": "smoke"}).json()["key"]
    smoke = subprocess.run(
        [sys.executable, "-m", "scripts.smoke", address(fleet)],
        check=False,
        cwd=ROOT,
        env={**os.environ, "SMOKE_KEY": key},
        capture_output=True,
        text=True,
        timeout=300,
    )
    steps = [line.split(": ")[1] for line in smoke.stdout.splitlines()]
    assert steps == ["health", "ready", "invoke", "stream", "task"], smoke.stderr
    assert decided(admin, waiting(admin))["status"] == "succeeded"
    assert admin.get("/v1/agents/research").json()["pattern"] == "remote"
    asked = {"input": "What happens when two people change the same file while offline?", "cache": "bypass"}
    found = admin.post("/v1/agents/research/invoke", json=asked)
    assert found.json()["status"] == "succeeded", found.text


def test_no_request_fails_whatever_happens_to_the_replicas(
    fleet: Compose, admin: httpx2.Client, image: str
) -> None:
    (nginx,) = containers(fleet, "nginx")
    started = inspected(nginx, ".State.StartedAt")
    before = waiting(admin)
    migration = MIGRATION.format(before=revisions()[-1])
    with version(image, "next", "migrations/versions/9999_next.py", migration), loaded(admin) as load:
        load.more(100)
        dead = [*containers(fleet, "slipway-1"), containers(fleet, "slipway-more")[0]]
        for container in dead:
            docker("kill", "--signal", "KILL", container)
        load.more(300)
        assert load.failed == [], "two of four are dead"

        for container in dead:
            docker("start", container)
        fleet("up", "--detach", "--no-deps", "--no-build", "--force-recreate", "--wait", "slipway-2")
        load.more(100)
        assert load.failed == [], "restarted, and another at a new address"

        assert "from test to next" in roll(fleet, "next")
        assert image_of(fleet) == {"next"} and revision(fleet) == "9999"
        after = waiting(admin)
        load.more(100)
        assert load.failed == [], "upgraded, with a migration"
        assert decided(admin, before)["status"] == "succeeded", "a run of the version before"

        assert "from next to test" in roll(fleet, "--back")
        assert image_of(fleet) == {"test"} and revision(fleet) == "9999"
        load.more(max(100, AT_LEAST - load.asked))
    assert load.failed == []
    assert decided(admin, after)["status"] == "succeeded", "a run of the version that is gone"
    assert inspected(nginx, ".State.StartedAt") == started, "nginx has followed without a restart"
    print(f"{load.asked} requests, {len(load.failed)} failed")


def image_of(fleet: Compose) -> set[str]:
    found = [each for service in (*REPLICAS, "worker", "mail") for each in containers(fleet, service)]
    return {inspected(container, ".Config.Image").rpartition(":")[2] for container in found}


def revision(fleet: Compose) -> str:
    path = "PATH=$(echo /usr/lib/postgresql/*/bin):$PATH"
    asked = f"{path} psql -h 127.0.0.1 -U slipway -tAc 'SELECT version_num FROM alembic_version'"
    return fleet("exec", "-T", "-e", "PGPASSWORD=demo-only", "postgres", "bash", "-c", asked).strip()


def test_a_version_that_does_not_get_healthy_is_taken_back(
    fleet: Compose, admin: httpx2.Client, image: str
) -> None:
    broken = "raise SystemExit('broken')\n"
    with version(image, "broken", "wsgi.py", broken), loaded(admin) as load:
        said = roll(fleet, "broken", status=1)
        load.more(50)
    assert "broken does not get healthy; back to test" in said and load.failed == []
    assert image_of(fleet) == {"test"}
