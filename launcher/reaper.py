"""Reaper: a separate program that kills the sessions left by a killed launcher, which alone holds its stdin.

PDEATHSIG (`launcher.process`) reaches the launcher's children but not theirs, and a child may hang while stopping:
Celery does when Redis goes first. Input lines are `+pid`, one more session, or the list of all live ones; at EOF
those are ended. The reaper keeps the launcher's lock until then, so the next launcher with the same state folder
starts clean. Few imports: the process lives as long as the launcher.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable

GRACE_SECONDS = 3.0  # for processes that got PDEATHSIG and are stopping
POLL_SECONDS = 0.05


class Reaper:
    """Client in the launcher. `lock` is the descriptor of the lock on its state folder."""

    def __init__(self, lock: int) -> None:
        self._lock = lock
        self._process = self._begin()

    def register(self) -> None:
        """Add the calling child's session, between fork and exec; from then on it ends with the launcher."""
        os.write(self._pipe, b"+%d\n" % os.getpid())

    def watch(self, sessions: Iterable[int]) -> None:
        """Replace the list of live sessions; restarts a killed reaper."""
        if self._process.poll() is not None:
            self._process = self._begin()
        os.write(self._pipe, " ".join(map(str, sessions)).encode() + b"\n")

    def close(self) -> None:
        """Stop the reaper, once all sessions have ended."""
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
    """Send SIGKILL to the process group of `leader`."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: of zombies, the latter
        os.killpg(leader, signal.SIGKILL)


def is_alive(leader: int) -> bool:
    """Check whether the process group of `leader` still has members."""
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS: zombies, or somebody else's by now
        return False
    return True


def main() -> None:
    """Read stdin until the launcher is gone, wait for `GRACE_SECONDS`, kill the remaining sessions."""
    sessions: set[int] = set()
    for line in sys.stdin.buffer:
        known = sessions if line.startswith(b"+") else set()
        sessions = known | {int(word) for word in line.split()}
    deadline = time.monotonic() + GRACE_SECONDS
    while any(map(is_alive, sessions)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    for leader in sessions:
        kill_session(leader)


if __name__ == "__main__":
    main()
