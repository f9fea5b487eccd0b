"""A file system of a few megabytes, for tests that fill it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_libc = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH = 2


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """`folder` as a tmpfs of its own. Skips the test where this user may not mount one."""
    folder.mkdir()
    options = f"size={megabytes}m,mode=0755".encode()
    if not hasattr(_libc, "mount") or _libc.mount(b"none", bytes(folder), b"tmpfs", 0, options) != 0:
        pytest.skip("a small file system can be mounted by root only, on Linux")
    try:
        yield folder
    finally:
        _libc.umount2(bytes(folder), _MNT_DETACH)
        folder.rmdir()


def fill(folder: Path) -> Path:
    """Leave no byte of room. Returns the file that takes it: delete it to make room again."""
    ballast = folder / "ballast"
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(folder).f_bavail == 0
    return ballast
