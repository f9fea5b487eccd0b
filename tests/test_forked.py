"""Programs in forks are as if started by themselves: output, environment, end; what needs its own start is refused."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import PYTHON, free_port, model_server, process
from tests.forked import ForkedChild
from tests.processes import forker

SETTINGS = [PYTHON, "-m", "alembic", "--version"]


def test_a_program_writes_where_it_is_told_and_tells_its_end(tmp_path: Path) -> None:
    with (
        (tmp_path / "out").open("wb") as out,
        process(SETTINGS, stdout=out, stderr=subprocess.DEVNULL) as child,
    ):
        assert isinstance(child, ForkedChild)
        assert child.wait(60) == child.poll() == child.returncode == 0
    assert "alembic" in (tmp_path / "out").read_text()
    child.terminate()  # long gone


def test_a_program_has_the_environment_that_it_is_given(tmp_path: Path) -> None:
    command = [PYTHON, "-m", "alembic", "current"]
    with (
        (tmp_path / "err").open("wb") as err,
        process(command, {"DATABASE_URL": "ftp://x"}, stderr=err) as child,
    ):
        assert child.wait(60) == 1
    assert "DATABASE_URL" in (tmp_path / "err").read_text()


def test_a_killed_program_ends_with_its_signal() -> None:
    with model_server():
        command = [PYTHON, "-m", "offline_model", "--port", str(free_port())]
        with process(command, stdout=subprocess.DEVNULL) as child:
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(0.01)
            os.kill(child.pid, signal.SIGKILL)
            assert child.wait(60) == -signal.SIGKILL


@pytest.mark.parametrize(
    ("command", "env", "options"),
    [
        ([PYTHON, "-c", "pass"], {}, {}),
        ([PYTHON, "-m", "launcher"], {}, {}),
        (SETTINGS, {"PYTHONPATH": "/nowhere"}, {}),
        (SETTINGS, {}, {"cwd": "/"}),
        (SETTINGS, {}, {"stdout": subprocess.PIPE}),
    ],
)
def test_others_are_started_by_themselves(
    command: list[str], env: dict[str, str], options: dict[str, object]
) -> None:
    assert forker.start(command, {**os.environ, **env}, options) is None
