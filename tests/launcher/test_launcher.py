"""`make run`, for real: everything starts, is looked after, and ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import wait_until
from tests.launcher.house import Launcher

MAX_MIB = 360  # of 345 measured

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def running(scratch: Path) -> Iterator[Launcher]:
    launcher = Launcher(scratch / "running")
    launcher.start()
    yield launcher
    launcher.end()


@pytest.fixture
def own(scratch: Path) -> Iterator[Launcher]:
    launcher = Launcher(scratch / "own")
    yield launcher
    launcher.end()


def test_banner_shows_address_and_sign_in(running: Launcher) -> None:
    banner = running.output[running.output.index("Slipway is up") :]
    for part in (
        running.url,
        "agents: 7 served\n",
        "demo / demo-password",
        "offline model: answers come from a stand-in",
        "Redis (embedded)",
        "mail (port ",
        "calendar (port ",
    ):
        assert part in banner
    assert "not ready" not in banner


def test_commands_of_the_banner_work(running: Launcher) -> None:
    lines = re.findall(r"^  ((?:TOKEN=|curl ).*)$", running.output, re.M)
    assert len(lines) == 2
    answer = subprocess.run(
        ["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(answer.stdout)["status"] == "succeeded"


def test_state_folder_is_private(running: Launcher) -> None:
    for path in (
        running.home,
        running.home / "run",
        running.home / "redis",
        running.home / "run" / "redis.sock",
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700, path


def test_idle_programs_share_their_memory(running: Launcher) -> None:
    """With one web process. Each by itself they took 240 MiB more."""
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in running.family()]
    shares = [int(re.findall(r"^Pss: +(\d+) kB$", rollup, re.M)[0]) for rollup in rollups]
    assert sum(shares) / 1024 < MAX_MIB, shares


def test_second_launcher_with_the_same_state_folder_is_refused(running: Launcher) -> None:
    answer = running.start_another(PORT="0")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert (
        answer.stderr
        == f"Slipway is running already with the state folder {running.home} (pid {running.pid}).\n"
    )


def test_used_port_is_a_one_line_error(own: Launcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = own.start_another(PORT=str(port))
    assert (answer.returncode, answer.stdout) == (1, "")
    assert answer.stderr == f"Port {port} is taken. Choose another: PORT={port + 1} make run\n"


@pytest.mark.parametrize("command", [("launcher",), ("gunicorn", "-c", "gunicorn.conf.py", "wsgi:app")])
def test_invalid_settings_print_only_their_message(own: Launcher, command: tuple[str, ...]) -> None:
    environ = own.environ(
        APP_ENV="production", DEBUG="1", DATABASE_URL="postgresql://d/d", REDIS_URL="redis://r"
    )
    answer = subprocess.run(
        (sys.executable, "-m", *command),
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=Path.cwd(),
    )
    lines = answer.stderr.splitlines()
    assert 1 <= answer.returncode <= 3
    assert lines[0] == "Slipway cannot start: 3 settings are wrong (APP_ENV=production)."
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["ANTHROPIC_API_KEY", "SECRET_KEY", "DEBUG"]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("redis", "valkey-server"),
        ("worker", "celery"),
        ("web", "gunicorn"),
        ("offline model", "offline_model"),
        ("mail and calendar", "mcp_servers"),
    ],
)
def test_killed_programs_are_restarted(running: Launcher, name: str, part: str) -> None:
    before = running.pid_of(part)
    os.kill(before, signal.SIGKILL)
    wait_until(
        lambda: f"slipway: {name} ended (signal 9); starting it again in" in running.output,
        "the line that says so",
    )
    wait_until(lambda: [p for p, c in running.family().items() if part in c and p != before], "another")
    wait_until(running.healthy, "an answer")
    assert before not in running.family()


def test_killed_launcher_leaves_no_process_and_restarts(own: Launcher) -> None:
    own.start()
    family = own.family()
    os.kill(own.pid, signal.SIGKILL)
    assert own.process is not None
    own.process.wait()
    own.start()  # waits for those on their way out
    assert not family.keys() & own.family().keys()
    own.process.terminate()
    assert own.process.wait(30) == 0
    assert own.family() == {}


def test_launcher_ends_with_its_make_process(own: Launcher) -> None:
    shell = f"{sys.executable} -m launcher --parent-pid $$; exit 3"  # one more command, or the shell would become it
    own.start("sh", "-c", shell)
    os.kill(own.pid, signal.SIGKILL)
    wait_until(lambda: own.family() == {}, "the end of all")
