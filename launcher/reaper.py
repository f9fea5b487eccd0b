"""Ends what a killed launcher left behind. A program of its own: the launcher, and nobody else, holds its stdin.

The kernel tells the launcher's own children (`launcher.process`), but not theirs, and a child may hang on its way
out: Celery does when Redis goes first. A line is either `+pid`, one more session, or the list of all that live. At
the end of the input those are ended. It holds the launcher's lock until they are: the next launcher with the same
state folder begins when the last one has left nothing. It imports little: it is there for as long as the launcher is.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

GRACE_SECONDS = 3.0  # for those that were told and are ending well
LOOK_SECONDS = 0.05


class Reaper:
    """The launcher's side. `lock` is the descriptor of the lock on its state folder."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self._process = self._begin()

    def enlist(self) -> None:
        """Called by a child before it becomes its program: from then on it ends with the launcher."""
        os.write(self._pipe, b"+%d\n" % os.getpid())

    def watch(self, sessions: Iterable[int]) -> None:
        """These are all that live. Begins a new reaper if the last one was killed."""
        if self._process.poll() is not None:
            self._process = self._begin()
        os.write(self._pipe, " ".join(map(str, sessions)).encode() + b"\n")

    def close(self) -> None:
        """All has ended: there is nothing left to do."""
        self._process.kill()
        self._process.communicate()

    @property
    def _pipe(self) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def _begin(self) -> "subprocess.Popen[bytes]":
        command = (sys.executable, "-I", "-S", __file__)
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, start_new_session=True, pass_fds=(self._lock,)
        )


def kill_session(leader: int) -> None:
    """SIGKILL to whatever is left of the session and process group of `leader`."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: of zombies, the latter
        os.killpg(leader, signal.SIGKILL)


def lives(leader: int) -> bool:
    """Whether anything is left of the process group of `leader`."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS: zombies, or somebody else's by now
        return False
    return True


def main() -> None:
    """Read until the launcher is gone, give the others a moment, end the rest."""
    sessions: set[int] = set()
    for line in sys.stdin.buffer:
        known = sessions if line.startswith(b"+") else set()
        sessions = known | {int(word) for word in line.split()}
    deadline = time.monotonic() + GRACE_SECONDS
    while any(map(lives, sessions)) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    for leader in sessions:
        kill_session(leader)


if __name__ == "__main__":
    main()
