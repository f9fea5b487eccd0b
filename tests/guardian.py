"""Ends what a test run leaves behind when it is killed: no fixture is torn down then.

A program of its own that reads from the test run alone. At the end of its input, which comes however the run ends, it
ends every process that carries the run's token in its environment, and the listed ones (nginx writes its title over
its environment). Each worker of pytest-xdist has a guardian of its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

TOKEN = "SLIPWAY_TEST_RUN"
GRACE = 3.0  # seconds for those that end well when they are asked to
ROUNDS = 20  # looks for what has been started meanwhile


class Guardian:
    """The side of the test run. What it starts from now on carries its token."""

    def __init__(self) -> None:
        token = secrets.token_hex(8)
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, token],
            stdin=subprocess.PIPE,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if name != TOKEN},
        )
        os.environ[TOKEN] = token

    def list(self, pid: int) -> None:
        self._tell(f"+{pid}")

    def unlist(self, pid: int) -> None:
        """Forget an ended process: its number may be reused."""
        self._tell(f"-{pid}")

    def close(self) -> None:
        """Have it end what is left, and wait for that."""
        self._process.communicate(timeout=30)

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        os.write(self._process.stdin.fileno(), f"{line}\n".encode())


def carriers(token: str) -> set[int]:
    """Processes of this user that were started with the token."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is not ours
            if f"{TOKEN}={token}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def children_of(pid: int) -> list[int]:
    """Pids of a process's children, whichever of its threads has forked them: each thread has a list of its own."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for each in lists for child in each.read_text().split())


def send(pids: set[int], signum: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signum)


def lives(pid: int) -> bool:
    """Whether it runs; one that has ended and nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> None:
    """Read until the run is gone, ask all that is left to end, then make it."""
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # meant for the run: its end is what counts
        signal.signal(signum, signal.SIG_IGN)
    token, listed = sys.argv[1], set[int]()
    for line in sys.stdin:
        (listed.add if line.startswith("+") else listed.discard)(int(line[1:]))
    send(listed | carriers(token), signal.SIGTERM)
    end = time.monotonic() + GRACE
    while time.monotonic() < end and any(map(lives, listed | carriers(token))):
        time.sleep(0.05)
    for _ in range(ROUNDS):
        left = set(filter(lives, listed | carriers(token)))
        if not left:
            break
        send(left, signal.SIGKILL)
        time.sleep(0.05)


if __name__ == "__main__":
    main()
