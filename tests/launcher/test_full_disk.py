"""`make run` on a disk that fills up: its state, its Redis, its logs and its metric files are there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import wait_until
from tests.launcher.house import Launcher
from tests.small_disk import fill, small_disk

PARTS = ("gunicorn", "valkey-server", "offline_model", "python")  # not Celery, which ends when Redis refuses


@pytest.fixture
def disk(scratch: Path) -> Iterator[Path]:
    with small_disk(scratch / "disk", 60) as folder:
        yield folder


@pytest.fixture
def launcher(disk: Path) -> Iterator[Launcher]:
    found = Launcher(disk / "home")
    yield found
    found.end()


def test_start_on_a_full_disk_is_a_one_line_error(disk: Path, launcher: Launcher) -> None:
    launcher.home.mkdir()
    fill(disk)
    answer = launcher.start_another()
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == f"The state folder {launcher.home} cannot be written: No space left on device.\n"


@pytest.mark.slow
def test_full_disk_stops_no_program_and_recovers(disk: Path, launcher: Launcher) -> None:
    def steady() -> dict[int, str]:
        return {p: line for p, line in launcher.family().items() if line.startswith(PARTS)}

    launcher.start()
    before = steady()
    login = {"username": "demo", "password": "demo-password"}
    token = httpx2.post(f"{launcher.url}/v1/auth/login", json=login, timeout=30).json()["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    with httpx2.Client(base_url=launcher.url, headers=headers, timeout=30, trust_env=False) as client:
        ballast = fill(disk)
        for door in ("invoke", "tasks"):
            answer = client.post(f"/v1/agents/assistant/{door}", json={"input": f"Full {door}"})
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert client.get("/health").status_code == 200
        assert steady() == before
        ballast.unlink()
        wait_until(lambda: client.get("/ready").json()["status"] == "ok", "all parts again")
        run = client.post("/v1/agents/assistant/tasks", json={"input": "Room again"}).json()["run_id"]
        wait_until(lambda: client.get(f"/v1/runs/{run}").json()["status"] == "succeeded", "the task")
        assert steady() == before
