"""Ends what a killed launcher left behind. A program of its own: the launcher, and nobody else, holds its stdin.

The kernel tells the launcher's own children (`launcher.process`), but not theirs, and a child may hang on its way
out: Celery does when Redis goes first. Each line read is the list of sessions that live; at the end of the input the
last list is ended. No other imports than these: it is there for as long as the launcher is.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

GRACE_SECONDS = 3.0  # for those that were told and are ending well


class Reaper:
    """The launcher's side."""

    def __init__(self) -> None:
        self._process = self._begin()

    def watch(self, sessions: Iterable[int]) -> None:
        """From now on these sessions end with the launcher. Begins a new reaper if the last one was killed."""
        if self._process.poll() is not None:
            self._process = self._begin()
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, sessions)).encode() + b"\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """All has ended: there is nothing left to do."""
        self._process.kill()
        self._process.wait()

    @staticmethod
    def _begin() -> "subprocess.Popen[bytes]":
        command = (sys.executable, "-I", "-S", __file__)
        return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def kill_session(leader: int) -> None:
    """SIGKILL to whatever is left of the session and process group of `leader`."""
    with contextlib.suppress(
        ProcessLookupError, PermissionError
    ):  # macOS: PermissionError of a group of zombies
        os.killpg(leader, signal.SIGKILL)


def main() -> None:
    """Read until the launcher is gone, wait a moment, end the rest."""
    sessions: list[int] = []
    for line in sys.stdin.buffer:
        sessions = [int(word) for word in line.split()]
    if sessions:
        time.sleep(GRACE_SECONDS)
    for leader in sessions:
        kill_session(leader)


if __name__ == "__main__":
    main()
