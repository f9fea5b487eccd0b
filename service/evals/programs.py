"""Programs that evals start for themselves: the offline model, and mail and calendar of this repository."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from service.errors import Unavailable
from service.mcp import child

STOP_SECONDS = 10.0
OURS = Path(__file__).resolve().parents[2]  # clone or image, whose modules these programs are


@contextmanager
def offline_model() -> Iterator[str]:
    """Start the offline model on a free port; yield its address. Raises `Unavailable`."""
    command = ["offline_model", "--host", "127.0.0.1", "--port", "0"]
    with _program(command, lines=1) as [said]:
        yield said.rpartition(" on ")[2]


@contextmanager
def mail_and_calendar(home: Path) -> Iterator[Mapping[str, str]]:
    """Start both MCP servers on free ports; yield the variables that name their addresses. Raises `Unavailable`."""
    command = ["mcp_servers", "--home", str(home), "--mail-port", "0", "--calendar-port", "0"]
    with _program(command, lines=2) as said:
        named = (line.partition(" on ") for line in said)
        yield {f"{name.upper()}_URL": address for name, _, address in named}


@contextmanager
def _program(command: Sequence[str], lines: int) -> Iterator[list[str]]:
    """Start a module under a supervisor, and yield its first lines.

    It ends with this, also by `kill -9`; Ctrl-C in a terminal does not reach it.
    """
    supervisor = [sys.executable, "-I", "-S", child.__file__, str(os.getpid())]
    started = subprocess.Popen(
        [*supervisor, sys.executable, "-m", *command],
        cwd=OURS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert started.stdout is not None
        said = [started.stdout.readline().strip() for _ in range(lines)]
        if not all(said):
            code = started.wait(STOP_SECONDS)
            raise Unavailable(f"`python -m {command[0]}` does not start: it ended with {code}.")
        yield said
    finally:
        _stop(started)
        if started.stdout is not None:
            started.stdout.close()


def _stop(started: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGTERM)
    try:
        started.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        started.send_signal(child.END)
        started.wait()


def addresses_given() -> bool:
    """Return whether the operator's environment names servers of mail or calendar, which are then used."""
    return any(os.environ.get(name) for name in ("MAIL_URL", "CALENDAR_URL"))
