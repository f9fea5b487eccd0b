"""Supervisor with small programs that misbehave on purpose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.supervisor import MAX_START_FAILURES
from tests.conftest import ROOT, process, wait_until
from tests.guardian import children_of

DRIVER = """
import os, sys
from launcher.state import CannotStart
from launcher.supervisor import Program, Stopped, Supervisor
def shell(name, script, **options):
    return Program(name, ("sh", "-c", script), **options)
supervisor = Supervisor(os.environ, os.open(os.devnull, os.O_RDONLY))
try:
{body}
except Stopped:
    print("stopped", flush=True)
except CannotStart as error:
    print(error, flush=True)
finally:
    supervisor.stop()
"""
# Tells its own end; the sleep is a child of the shell's, as a web server has workers.
POLITE = "trap 'echo {name} ends; exit 0' TERM; sleep 1000 & wait"


def driver(*body: str) -> list[str]:
    return [sys.executable, "-c", DRIVER.format(body="\n".join(f"    {line}" for line in body))]


def run(*body: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(driver(*body), cwd=ROOT, capture_output=True, text=True, timeout=60)


def add(name: str, script: str, **options: object) -> str:
    more = "".join(f", {key}={value!r}" for key, value in options.items())
    return f"supervisor.add(shell({name!r}, {script!r}{more}))"


def test_programs_stop_in_reverse_order(tmp_path: Path) -> None:
    names = ("redis", "model", "web")
    body = [add(name, POLITE.format(name=name)) for name in names]
    log = tmp_path / "out"
    with (
        log.open("wb") as out,
        process(
            driver(*body, "print('up', flush=True)", "while True: supervisor.tick()"), stdout=out
        ) as child,
    ):
        wait_until(lambda: "up" in log.read_text(), "the start")
        wait_until(lambda: len(children_of(child.pid)) == 4, "the programs")  # and the reaper
        child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0
    assert log.read_text().split("\n")[1:5] == ["stopped", "web ends", "model ends", "redis ends"]


def test_program_that_does_not_stop_is_killed_with_itschildren_of(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    stubborn = f"trap '' TERM; sleep 1001 & echo $! > {mark}; wait; wait"
    done = run(
        add("stubborn", stubborn, stop_seconds=0.3),
        f"while not os.path.exists({str(mark)!r}): supervisor.tick()",
    )
    assert done.returncode == 0
    wait_until(lambda: not _lives(int(mark.read_text())), "the end of its child")


def test_second_signal_kills_at_once(tmp_path: Path) -> None:
    log = tmp_path / "out"
    body = (
        add("stubborn", "trap 'echo asked' TERM; echo up; while :; do sleep 0.1; done", stop_seconds=1000.0),
        "while True: supervisor.tick()",
    )
    with log.open("wb") as out, process(driver(*body), stdout=out) as child:
        for word in ("up", "asked"):
            wait_until(lambda word=word: word in log.read_text(), word)  # type: ignore[misc]
            child.send_signal(signal.SIGINT)
        assert child.wait(30) == 0


def test_program_that_never_starts_ends_the_launcher() -> None:
    done = run(add("web", "exit 7"), "while True: supervisor.tick()")
    assert done.stdout == "web does not start (exit code 7); its own lines above say why.\n"
    assert (
        done.stderr.count("slipway: web ended (exit code 7); starting it again in ") == MAX_START_FAILURES - 1
    )


def test_once_program_must_succeed_and_is_not_repeated(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    once = add("migrations", f"echo ran >> {mark}", once=True)
    run(once, "supervisor.run_until(supervisor.ready)", "for _ in range(20): supervisor.tick()")
    assert mark.read_text() == "ran\n"
    failed = run(add("migrations", "exit 1", once=True), "supervisor.run_until(supervisor.ready)")
    assert failed.stdout == "migrations does not start (exit code 1); its own lines above say why.\n"


def test_children_of_a_dead_program_are_killed_before_its_restart(tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    script = f"sleep 1002 & echo $! >> {mark}; exit 1"
    run(add("worker", script), "while True: supervisor.tick()")
    pids = [int(word) for word in mark.read_text().split()]
    assert len(pids) == MAX_START_FAILURES
    wait_until(lambda: not any(map(_lives, pids)), "the end of all it had started")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal to orphans is Linux's")
@pytest.mark.parametrize("hangs", [False, True], ids=["polite", "hangs"])
def test_killed_supervisor_leaves_no_descendants(tmp_path: Path, hangs: bool) -> None:
    mark = tmp_path / "pids"
    trap = "''" if hangs else "'kill $!; exit'"
    script = f"trap {trap} TERM; sleep 1003 & echo $$ $! > {mark}; while :; do wait; done"
    with process(driver(add("worker", script), "while True: supervisor.tick()")) as child:
        wait_until(lambda: mark.exists() and len(mark.read_text().split()) == 2, "the worker")
        reaper = [
            pid for pid in children_of(child.pid) if b"reaper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        pids = [int(word) for word in mark.read_text().split()]
        assert all(map(_lives, pids))
        child.kill()
        child.wait()
        wait_until(lambda: not any(map(_lives, pids + reaper)), "the end of all")


def test_killed_reaper_is_replaced(tmp_path: Path) -> None:
    mark = tmp_path / "pids"
    script = f"trap '' TERM; echo $$ >> {mark}; while :; do sleep 0.1; done"
    with process(driver(add("worker", script), "while True: supervisor.tick()")) as child:
        wait_until(mark.exists, "the worker")
        [reaper] = [
            pid for pid in children_of(child.pid) if b"reaper.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(reaper, signal.SIGKILL)
        os.kill(int(mark.read_text()), signal.SIGKILL)
        wait_until(lambda: len(mark.read_text().split()) == 2, "the worker again")
        child.kill()
        child.wait()
        wait_until(lambda: not _lives(int(mark.read_text().split()[1])), "the end of the worker")


def _lives(pid: int) -> bool:
    """Ignore zombies that are not yet reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
