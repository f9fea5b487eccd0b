"""Starting a child that cannot outlive its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

_PR_SET_PDEATHSIG = 1
# Looked up here, because between fork and exec only the plainest calls are safe.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with(parent_pid: int, signum: signal.Signals) -> None:
    """Have the kernel send `signum` to this process when its parent ends, and leave now if it has ended already.

    Survives exec, not fork: `launcher.reaper` sees to the rest, and to systems other than Linux.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def spawn(
    command: Sequence[str], env: Mapping[str, str], keep_open: Sequence[int], enlist: Callable[[], None]
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own: a Ctrl-C reaches the launcher alone, which then ends all in order.

    Its output goes where ours goes. `keep_open` are file descriptors it inherits; `enlist` is called in the child.
    """
    parent_pid = os.getpid()

    def prepare() -> None:  # between fork and exec: safe, because the launcher has no threads
        enlist()
        die_with(parent_pid, signal.SIGTERM)

    return subprocess.Popen(
        command,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=keep_open,
        preexec_fn=prepare,
    )
