"""What must be ours before anything starts: the state folder and the port."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import time
from pathlib import Path

_LEFTOVERS_SECONDS = 10.0


class CannotStart(Exception):
    """One clear line for the person who typed the command."""


def private_folder(path: Path) -> Path:
    """Make `path` if need be, for this user's eyes only. Raises CannotStart."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)  # refused when it belongs to somebody else, as in a shared temporary folder
    except OSError as error:
        raise CannotStart(f"{path} cannot be used as a private folder: {error.strerror}") from error
    return path


def hold(home: Path) -> int:
    """Lock the state folder; returns the lock's descriptor. Raises CannotStart when another launcher has it.

    The children inherit the descriptor, so the folder stays locked until the last of them has gone. Those of a
    launcher that was killed are on their way out: they are waited for.
    """
    try:
        return _hold(home)
    except OSError as error:  # a full disk, or one that may only be read
        raise CannotStart(f"The state folder {home} cannot be written: {error.strerror}.") from error


def _hold(home: Path) -> int:
    lock = os.open(home / "launcher.lock", os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + _LEFTOVERS_SECONDS
    while not _lock(lock):
        owner = _owner(lock)
        if _alive(owner):
            raise CannotStart(f"Slipway is running already with the state folder {home} (pid {owner}).")
        if time.monotonic() > deadline:
            raise CannotStart(f"The state folder {home} is still held by what pid {owner} had started.")
        time.sleep(0.05)
    os.ftruncate(lock, 0)
    os.pwrite(lock, str(os.getpid()).encode(), 0)
    return lock


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _owner(lock: int) -> int:
    text = os.pread(lock, 20, 0)
    return int(text) if text.isdigit() else 0


def _alive(pid: int) -> bool:
    if pid == 0:  # locked a moment ago, its pid not yet written
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def claim_port(host: str, port: int) -> int:
    """The port if it is free, or a free one when it is 0. Raises CannotStart when it is not to be had."""
    try:
        return _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CannotStart(f"Port {port} is taken. Choose another: PORT={port + 1} make run") from error
        raise CannotStart(f"{host}:{port} cannot be listened on: {error.strerror}") from error


def free_port(host: str, preferred: int) -> int:
    """`preferred` if it is free, else any that is."""
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
