"""Child processes that cannot outlive their parent (PDEATHSIG)."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence

_PR_SET_PDEATHSIG = 1
# Loaded at import: between fork and exec only async-signal-safe calls are allowed.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent_pid: int, signum: signal.Signals) -> None:
    """Have the kernel send `signum` to this process when its parent ends; exit at once if it has ended already.

    Survives exec, not fork: `launcher.reaper` covers grandchildren, and systems other than Linux.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signum), 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def spawn(
    command: Sequence[str], env: Mapping[str, str], keep_open: Sequence[int], register: Callable[[], None]
) -> subprocess.Popen[bytes]:
    """Start `command` in its own session, so that Ctrl-C reaches only the launcher, which stops all in order.

    stdout and stderr are inherited, as are the descriptors `keep_open`; `register` is called in the child.
    """
    parent_pid = os.getpid()

    def prepare() -> None:  # between fork and exec: safe, because the launcher has no threads
        register()
        die_with_parent(parent_pid, signal.SIGTERM)

    return subprocess.Popen(
        command,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=keep_open,
        preexec_fn=prepare,
    )
