"""Supervisor of a stdio server: `python -I -S child.py PARENT_PID PROGRAM ARGUMENT…`.

Starts the program and waits. When the program or the worker ends, also by `kill -9`, all processes that descend from
it end too, those in sessions of their own included (Linux).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

END = signal.SIGUSR1  # tells the supervisor to end the program at once
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
# SIGTERM to the group is for the program, which may need a moment; its supervisor waits.
_HELD = (END, signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(parent_pid: int, command: list[str]) -> int:
    """Run the program until it ends or has to; return its exit code. Raises `OSError` if it cannot be started."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, int(END), 0, 0, 0)
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if os.getppid() != parent_pid:
        return 1
    program = os.posix_spawnp(command[0], command, os.environ, setsigmask=())
    _let_go()
    code = 1
    while signal.sigwait((END, signal.SIGCHLD)) != END:
        ended = _reaped()
        if program in ended:
            code = ended[program]
            break
    _end_all()
    return code


def _let_go() -> None:
    """Close the program's pipes here, so that each side sees the other's end."""
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)


def _reaped() -> dict[int, int]:
    """Reap children that ended; return their exit codes."""
    ended = {}
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = os.waitstatus_to_exitcode(found[1])
    return ended


def _end_all() -> None:
    """Kill children until none is left: those of a killed one become ours."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    with suppress(ChildProcessError, FileNotFoundError):
        while True:
            for pid in children.read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            os.waitpid(-1, 0)


if __name__ == "__main__":
    try:
        sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
    except OSError as error:
        sys.exit(f"cannot be started: {error.strerror}")
