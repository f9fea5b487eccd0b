"""`make run` in a clone with a `.env`: everything reads it, and an edit of the code counts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.conftest import PYTHON, free_port, process, wait_until
from tests.launcher.clone import clone, command, environ

ENV = """\ufeffSLIPWAY_HOME={home}   # not var/
# Settings of this machine
export APP_ENV = "development"
PORT='{port}'
OFFLINE_MODEL_PORT=0
WEB_CONCURRENCY=1
THREADS=8
GRACEFUL_TIMEOUT=5
LOG_LEVEL=INFO
BOOTSTRAP_USERNAME=ada
BOOTSTRAP_PASSWORD=password of ada
"""


class Clone:
    def __init__(self, folder: Path, port: int, out: Path) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self._out = out

    @property
    def output(self) -> str:
        return self._out.read_text(errors="replace")

    def health(self) -> Any:
        return httpx2.get(f"{self.url}/health", timeout=5, trust_env=False).json()

    def edit(self, old: str, new: str) -> None:
        path = self.folder / "service" / "web" / "routes" / "health.py"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


@pytest.fixture(scope="module")
def running(scratch: Path) -> Iterator[Clone]:
    port, home = free_port(), scratch / "cloned-home"
    folder = clone(scratch / "clone", ENV.format(home=home, port=port))
    out = scratch / "clone.out"
    with (
        out.open("wb") as file,
        process(command("launcher"), environ(), stdout=file, stderr=file, cwd=folder) as child,
    ):
        made = Clone(folder, port, out)
        wait_until(lambda: "Slipway is up" in made.output or child.poll() is not None, "the banner")
        assert child.poll() is None, made.output
        yield made


def test_every_program_reads_the_env_file(running: Clone) -> None:
    assert f"Slipway is up: {running.url}" in running.output
    login = {"username": "ada", "password": "password of ada"}
    assert httpx2.post(f"{running.url}/v1/auth/login", json=login, timeout=30).status_code == 200
    listed = subprocess.run(
        [PYTHON, "-m", "flask", "users", "list", "--json"],
        cwd=running.folder,
        env=environ(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert [user["username"] for user in json.loads(listed.stdout)] == ["ada"]
    assert not (running.folder / "var").exists()


def test_task_worker_reads_the_env_file(running: Clone) -> None:
    ready: Callable[[], Any] = lambda: httpx2.get(f"{running.url}/ready", timeout=5).json()  # noqa: E731
    wait_until(lambda: ready()["worker"]["status"] == "ok", "the task worker")


def test_code_edit_restarts_and_a_broken_edit_recovers_once_fixed(running: Clone) -> None:
    assert running.health()["status"] == "ok"
    running.edit('{"status": "ok"', '{"status": "edited"')
    wait_until(lambda: running.health()["status"] == "edited", "the edited code")
    assert "the code has changed: starting web and worker again" in running.output
    running.edit('{"status": "edited"', '{"status": ]')
    wait_until(lambda: "SyntaxError" in running.output, "the end of what is broken")
    running.edit('{"status": ]', '{"status": "mended"')
    wait_until(lambda: running.health()["status"] == "mended", "the mended code")
