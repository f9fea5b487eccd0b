"""A test run that is killed leaves no server behind: not Gunicorn's workers, Celery's pool, PostgreSQL's, Redis's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PYTHON, ROOT, wait_until
from tests.guardian import TOKEN, carriers

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
RUN = """
import os
import pathlib
import time

from tests.chaos.conftest import postgres
from tests.conftest import model, redis_server, scratch, slipway
from tests.jobs.house import TaskWorker
from tests.nginx.pair import database


def test_that_hangs(scratch, postgres, slipway):
    with (
        TaskWorker(slipway.env, scratch / "worker.log").running() as worker,
        database("postgresql", scratch),
    ):
        while not (worker.pool() and slipway.workers()):
            time.sleep(0.1)
        pathlib.Path(os.environ["READY"]).write_text(os.environ["SLIPWAY_TEST_RUN"])
        time.sleep(600)
"""


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_leaves_nothing(tmp_path: Path, signum: signal.Signals) -> None:
    (tmp_path / "test_run.py").write_text(RUN)
    ready = tmp_path / "ready"
    command = [PYTHON, "-m", "pytest", "-q", "-c", "pyproject.toml", "-p", "no:cacheprovider", str(tmp_path)]
    environ = {**os.environ, "READY": str(ready), "PYTHONPATH": str(ROOT)}
    with (
        (tmp_path / "output").open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, env=environ, stdout=output, stderr=output) as run,
    ):
        wait_until(lambda: ready.exists() or run.poll() is not None, "the servers")
        assert ready.exists(), (tmp_path / "output").read_text()
        token = ready.read_text()
        assert token != os.environ[TOKEN]
        told = ("cmdline", "comm")  # a forked program has its name, and its parent's command line
        commands = {Path(f"/proc/{pid}/{name}").read_text() for pid in carriers(token) for name in told}
        for part in ("gunicorn", "celery", "valkey", "postgres", "offline_model"):
            assert any(part in command for command in commands), part
        run.send_signal(signum)
        run.wait(60)
        wait_until(lambda: carriers(token) == set(), "the end of all")
