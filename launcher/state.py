"""State folder lock and port check, before anything starts."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

_CLEANUP_SECONDS = 10.0


class CannotStart(Exception):
    """Start failure, with one line for the user."""


def private_folder(path: Path) -> Path:
    """Create `path` with mode 0700. Raises CannotStart."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)  # fails for another user's folder, as in a shared temporary folder
    except OSError as error:
        raise CannotStart(f"{path} cannot be used as a private folder: {error.strerror}") from error
    return path


def lock_folder(home: Path) -> int:
    """Lock the state folder; return the lock's descriptor. Raises CannotStart when another launcher holds it.

    Children inherit the descriptor, so the folder stays locked until the last one has ended. The children of a killed
    launcher are stopping: they are waited for.
    """
    try:
        return _acquire(home)
    except OSError as error:  # full or read-only disk
        raise CannotStart(f"The state folder {home} cannot be written: {error.strerror}.") from error


def _acquire(home: Path) -> int:
    lock = os.open(home / "launcher.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _CLEANUP_SECONDS
    while not _try_lock(lock):
        owner = _owner(lock)
        if _is_alive(owner):
            raise CannotStart(f"Slipway is running already with the state folder {home} (pid {owner}).")
        if time.monotonic() > deadline:
            raise CannotStart(f"The state folder {home} is still held by what pid {owner} had started.")
        time.sleep(0.05)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(lock: int) -> int:
    text = os.pread(lock, 20, 0)
    return int(text) if text.isdigit() else 0


def _is_alive(pid: int) -> bool:
    if pid == 0:  # locked just now, pid not yet written
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def claim_port(host: str, port: int) -> int:
    """Return the port if it is free, or any free one for 0. Raises CannotStart."""
    try:
        return _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(f"Port {port} is taken. Choose another: PORT={port + 1} make run") from error
        raise CannotStart(f"{host}:{port} cannot be listened on: {error.strerror}") from error


def free_port(host: str, preferred: int) -> int:
    """Return `preferred` if it is free, else any free port."""
    try:
        return _bind(host, preferred)
    except OSError:
        return _bind(host, 0)


def _bind(host: str, port: int) -> int:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        return int(probe.getsockname()[1])
