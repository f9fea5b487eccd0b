"""Programs of the service in forks of a process that has imported them, as `make run` does: imports take seconds.

A program that needs another interpreter, folder or set-up is started by itself.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from launcher import preload
from launcher.process import Fork, fork

ROOT = Path(__file__).parent.parent
MODULES = ("gunicorn", "celery", "offline_model", "alembic", "flask")
AT_IMPORT = (
    "PYTHON",
    "LD_",
    "TZ",
    "LC_",
    "LANG",
    "MALLOC",
    "ANTHROPIC_LOG",
)  # variables that count before a fork
LONGEST = 128 * 1024  # bytes of a message: a command and its environment
START_SECONDS = 120.0


class Child(Protocol):
    """What tests use of `subprocess.Popen`."""

    pid: int

    @property
    def returncode(self) -> int | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, signum: int) -> None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...


class ForkedChild:
    """Child of the process that forks, which tells how it ended."""

    def __init__(self, command: Sequence[str], status: socket.socket) -> None:
        self.args = [*command]
        self.returncode: int | None = None
        self._status = status
        self._status.settimeout(START_SECONDS)
        self.pid = int(self._status.recv(32))

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._status.settimeout(timeout)
            try:
                self.returncode = int(self._status.recv(32) or -signal.SIGKILL)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            except ConnectionError:  # the parent was killed, and its children with it
                self.returncode = -signal.SIGKILL
            self._status.close()
        return self.returncode

    def send_signal(self, signum: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forker:
    """The side of the tests: starts the parent when it is first needed. One for each process that runs tests."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._environ: dict[str, str] = {}

    def start(
        self, command: Sequence[str], env: Mapping[str, str], options: Mapping[str, Any]
    ) -> Child | None:
        """Run `python -m module …` in a fork. None: it must be started by itself."""
        if [*command[:2]] != [sys.executable, "-m"] or command[2] not in MODULES:
            return None
        out, err = (_descriptor(options.get(name), number) for name, number in (("stdout", 1), ("stderr", 2)))
        if out is None or err is None or options.keys() - {"stdout", "stderr"}:
            return None
        with self._lock:
            if self._channel is None:
                self._start()
            if self._channel is None or _at_import(env) != _at_import(self._environ):
                return None
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs:
                message = json.dumps([[*command], dict(env)]).encode()
                socket.send_fds(self._channel, [message], [out, err, theirs.fileno()])
        return ForkedChild(command, ours)

    def close(self) -> None:
        if self._channel is not None and self._process is not None:
            self._channel.close()
            self._process.wait(30)
            self._channel = None

    def _start(self) -> None:
        self._environ = dict(os.environ)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.forked", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
            )
        ours.settimeout(START_SECONDS)
        if ours.recv(16) == b"ready":  # else what a program needs cannot be imported: it tells why by itself
            ours.settimeout(None)
            self._channel = ours


def _descriptor(target: Any, inherited: int) -> int | None:
    """Return the descriptor of an output; None for a pipe, which only `subprocess` can make."""
    if target is None:
        return inherited
    if isinstance(target, int):
        return _devnull() if target == subprocess.DEVNULL else target if target >= 0 else None
    return int(target.fileno())


_null: list[int] = []


def _devnull() -> int:
    if not _null:
        _null.append(os.open(os.devnull, os.O_RDWR))
    return _null[0]


def _at_import(environ: Mapping[str, str]) -> dict[str, str]:
    found = {name: value for name, value in environ.items() if name.startswith(AT_IMPORT)}
    return {name: value for name, value in found.items() if name != "PYTEST_CURRENT_TEST"}


def main() -> None:
    """Fork programs as they are asked for, and tell how each ended, until the tests are gone."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    ready = preload.load()
    channel.send(b"ready" if ready else b"broken")
    with selectors.DefaultSelector() as selector:
        selector.register(channel, selectors.EVENT_READ)
        while ready:
            for key, _ in selector.select():
                if key.fileobj is not channel:
                    selector.unregister(key.fileobj)
                    os.close(key.fd)
                    _tell_end(*key.data)
                elif not (asked := socket.recv_fds(channel, LONGEST, 3))[0]:
                    return
                else:
                    command, env = json.loads(asked[0])
                    child, status = _forked(command, env, asked[1])
                    selector.register(os.pidfd_open(child.pid), selectors.EVENT_READ, (child, status))


def _forked(command: list[str], env: dict[str, str], descriptors: list[int]) -> tuple[Fork, socket.socket]:
    out, err, told = descriptors

    def register() -> None:
        os.dup2(out, 1)
        os.dup2(err, 2)

    child = fork(command, env, (), register)
    os.close(out)
    os.close(err)
    status = socket.socket(fileno=told)
    status.send(str(child.pid).encode())
    return child, status


def _tell_end(child: Fork, status: socket.socket) -> None:
    code = child.wait()
    with status, suppress(OSError):  # nobody asks any more
        status.send(str(code).encode())


if __name__ == "__main__":
    main()
