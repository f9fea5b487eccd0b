"""Processes of stdio servers: all of them end with their server and with the worker, and know no secret of ours."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends children on Linux only")
WORKER = """
import json, signal, sys, anyio
from service.mcp.stdio import stdio

async def main():
    async with stdio("deaf", json.loads(sys.argv[1]), {}):
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                return

anyio.run(main)
"""
# Each writes the ids of processes that hear neither the end of stdin nor SIGTERM.
DEAF = "trap '' TERM HUP; echo $$ > {0}; while :; do sleep 1; done"
FAMILY = "trap '' TERM HUP; sh -c '{child}' & setsid sh -c '{child}' & echo $$ >> {0}; wait"
CHILD = 'trap "" TERM HUP; echo $$ >> {0}; while :; do sleep 1; done'
LEFT = "setsid sh -c '{child}' & until [ -s {0} ]; do sleep 0.1; done; exit 0"


@contextmanager
def worker(script: str) -> Iterator[subprocess.Popen[bytes]]:
    import json

    child = subprocess.Popen([sys.executable, "-c", WORKER, json.dumps(["sh", "-c", script])])
    try:
        yield child
    finally:
        child.kill()
        child.wait(60)


def pids(file: Path, count: int) -> list[int]:
    def read() -> list[int]:
        found = [int(word) for word in file.read_text().split()] if file.exists() else []
        return found if len(found) >= count else []

    return list(wait_until(read, "the processes"))


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize(("script", "count"), [(DEAF, 1), (FAMILY, 3)], ids=["one", "family"])
def test_no_process_outlives_its_worker(tmp_path: Path, script: str, count: int, signum: int) -> None:
    file = tmp_path / "pids"
    with worker(script.format(file, child=CHILD.format(file))) as started:
        found = pids(file, count)
        os.kill(started.pid, signum)
        wait_until(lambda: not any(map(runs, found)), "the end of all")


def test_what_a_server_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with worker(LEFT.format(file, child=CHILD.format(file))):
        found = pids(file, 1)
        wait_until(lambda: not any(map(runs, found)), "the end of what was left")


def test_a_program_that_is_not_there_is_named_in_the_log(tmp_path: Path) -> None:
    from service.mcp.stdio import CHILD as supervisor

    command = [*supervisor, str(os.getpid()), str(tmp_path / "nothing")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert told.returncode == 1 and told.stderr == "cannot be started: No such file or directory\n"
