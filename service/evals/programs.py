"""Programs that evals start for themselves: the offline model, and mail and calendar of this repository."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from service.errors import Unavailable

START_SECONDS = 60.0
STOP_SECONDS = 10.0
OURS = Path(__file__).resolve().parents[2]  # clone or image, whose modules these programs are


@contextmanager
def offline_model() -> Iterator[str]:
    """Start the offline model on a free port; yield its address. Raises `Unavailable`."""
    command = ["offline_model", "--host", "127.0.0.1", "--port", "0", "--die-with-parent"]
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
    """Start a module and yield its first lines. It is stopped at the end; Ctrl-C in a terminal does not reach it."""
    child = subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=OURS,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        said = [child.stdout.readline().strip() for _ in range(lines)]
        if not all(said):
            raise Unavailable(
                f"`python -m {command[0]}` does not start: it ended with {child.wait(STOP_SECONDS)}."
            )
        yield said
    finally:
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        if child.stdout is not None:
            child.stdout.close()


def addresses_given() -> bool:
    """Return whether the operator's environment names servers of mail or calendar, which are then used."""
    return any(os.environ.get(name) for name in ("MAIL_URL", "CALENDAR_URL"))
