"""Stopped commands end at once: one line, the exit code of the signal, no lock left behind."""

from __future__ import annotations

import fcntl
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest

from service.store.sqlite_writers import Writers
from tests.cli.house import a_run, env, services, whole
from tests.conftest import PYTHON, migrate, process, wait_until
from tests.rules.places import database

__all__ = ["env", "services", "whole"]
SIGNALS = pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@contextmanager
def command(env: dict[str, str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """`flask` with these words, as a process of its own."""
    pipe = subprocess.PIPE
    # Tests that run in the background of a shell inherit a SIGINT that is ignored.
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with process([PYTHON, "-m", "flask", *words], env, stdout=pipe, stderr=pipe, preexec_fn=heard) as child:
        yield child


def stop(child: subprocess.Popen[bytes], signum: signal.Signals) -> tuple[int, list[str]]:
    """Send the signal; the exit code, and the lines on stderr."""
    child.send_signal(signum)
    _, told = child.communicate(timeout=60)
    return child.returncode, told.decode().splitlines()


def is_locked(file: IO[str]) -> bool:
    """Check whether another process holds a file's lock."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


@SIGNALS
def test_signal_stops_a_running_command(
    services: Any, env: dict[str, str], signum: signal.Signals, code: int
) -> None:
    run = a_run(services)
    with command(env, "runs", "replay", run.id, "--speed", "0.001") as child:
        assert child.stdout is not None
        assert child.stdout.read(1)  # the first event is told, the next one waits
        ended, told = stop(child, signum)
    assert (ended, told) == (code, [f"Stopped by {signum.name}."])


@pytest.fixture
def alone(env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Settings for a separate database."""
    env = {**env, "SLIPWAY_HOME": str(tmp_path)}
    migrate(env)
    return env


@SIGNALS
def test_signal_stops_a_command_waiting_for_a_lock(
    alone: dict[str, str], signum: signal.Signals, code: int
) -> None:
    """Check that no lock is left in SQLite."""
    database = Path(alone["SLIPWAY_HOME"]) / "slipway.db"
    writers = Writers(database, patience=5)
    others = Writers(database, patience=5)
    with writers.turn(), command(alone, "budgets", "set", "service", "5") as child:
        with Path(f"{database}-next").open() as file:
            wait_until(lambda: is_locked(file), "the command's turn to be next")
        ended, told = stop(child, signum)
    with others.turn():
        pass
    for each in (writers, others):
        each.close()
    assert (ended, told) == (code, [f"Stopped by {signum.name}."])


@SIGNALS
def test_signal_stops_a_ledger_check_on_postgresql(
    postgres_url: str, alone: dict[str, str], signum: signal.Signals, code: int
) -> None:
    """Stop a command waiting within a statement, which the server cancels too."""
    url = database(postgres_url, f"stopped_{code}")
    env = {**alone, "DATABASE_URL": url}
    migrate(env)
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    with psycopg.connect(url, autocommit=True) as looking, psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE ledger")
        with command(env, "ledger", "check") as child:
            wait_until(lambda: looking.execute(waits).fetchone() == (1,), "the check's wait for the ledger")
            ended, told = stop(child, signum)
        assert looking.execute(waits).fetchone() == (0,)
    assert (ended, told) == (code, [f"Stopped by {signum.name}."])
