"""Child processes that cannot outlive their parent (PDEATHSIG): spawned, or forked with what it has imported."""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import NoReturn

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
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


class Fork:
    """Forked child: what the supervisor uses of `subprocess.Popen`."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        return self._reap(os.WNOHANG)

    def wait(self) -> int | None:
        return self._reap(0)

    def terminate(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def _reap(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


Child = subprocess.Popen[bytes] | Fork


def fork(
    command: Sequence[str], env: Mapping[str, str], keep_open: Sequence[int], register: Callable[[], None]
) -> Fork:
    """Run `command`, which is `python -m module …`, in a fork of this process; otherwise like `spawn`."""
    parent_pid = os.getpid()
    if pid := os.fork():
        return Fork(pid)
    try:
        register()
        _detach(keep_open)
        die_with_parent(parent_pid, signal.SIGTERM)
        os.environ.clear()
        os.environ.update(env)
    except BaseException:
        os._exit(1)
    _run_module(command[2:])


def _detach(keep_open: Sequence[int]) -> None:
    """Give a forked child what a spawned one has: a session, default signals, no descriptors of its parent."""
    os.setsid()
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    first = 3
    for kept in (*sorted(keep_open), os.sysconf("SC_OPEN_MAX")):
        os.closerange(first, kept)
        first = kept + 1


def _run_module(argv: Sequence[str]) -> NoReturn:
    """Run a module as `python -m` would; whatever happens, never return to the launcher's frames."""
    code = 1
    try:
        code = _exit_code_of(argv)
    finally:
        os._exit(code)


def _exit_code_of(argv: Sequence[str]) -> int:
    """Run a module, named after it for `ps`; return the code its process is to end with."""
    code: object = 1
    try:
        if _libc is not None:
            _libc.prctl(_PR_SET_NAME, argv[0].encode(), 0, 0, 0)
        sys.argv = list(argv)
        runpy.run_module(argv[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    with suppress(Exception):
        if isinstance(code, str):
            print(code, file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    return code if isinstance(code, int) else int(code is not None)
