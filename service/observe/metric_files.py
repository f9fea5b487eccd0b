"""Preallocated metric files shared by the processes of a machine: web workers in one folder, task workers beside it.

prometheus_client maps one file per kind of metric and process. On a full disk, access to a hole in a mapped file kills
the process by SIGBUS. So each file is written in full before it is mapped, and never grows (`metrics.MAX_LABEL_SETS`).
Files are named by slot, not by pid: a process takes the lowest free slot and continues its counters, so there are never
more files than concurrent processes, and the successor of a dead process needs no new disk space.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

MIB = 1 << 20
# Bytes. Sized by `tests/observe/test_metrics.py::test_no_file_has_to_grow`; unused parts cost disk, not memory.
SIZES = {
    "counter": 4 * MIB,
    "histogram": 4 * MIB,
    "gauge_livemax": MIB // 8,
    "gauge_livemin": MIB // 16,
    "gauge_livesum": MIB // 8,
    "gauge_livemostrecent": MIB // 8,
}
GAUGES = tuple(kind for kind in SIZES if kind.startswith("gauge_live"))
FULL = (errno.ENOSPC, errno.EDQUOT)
_held: list[int] = []  # descriptors of this process's slots: released when it ends


def of_tasks(web: Path) -> Path:
    """Folder of the task workers whose metrics the web server with the folder `web` exposes."""
    return web.with_name(f"{web.name}-tasks")


def join(path: Path) -> None:
    """Let this process and its children count in `path`; on a full disk each counts by itself. Raises OSError."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in FULL:
            raise
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(path)


def clear(path: Path) -> None:
    """Reset all counts of processes that have ended, in place: deleted files would need new disk space."""
    _blank_unused(path, SIZES)


def take_slot(path: Path) -> int:
    """Take the lowest free slot of `path` until this process ends; preallocate its files. Raises OSError."""
    for slot in count():
        lock = _try_lock(path / f"{slot}.lock")
        if lock is None:
            continue
        try:
            for kind, size in SIZES.items():
                _preallocate(path / f"{kind}_{slot}.db", size)
        except OSError:
            os.close(lock)
            raise
        _blank(path, slot, GAUGES)
        _held.append(lock)
        return slot
    raise AssertionError("unreachable")


def forget_the_dead(path: Path) -> None:
    """Reset the gauges of processes that have ended; their counters stay."""
    _blank_unused(path, GAUGES)


def _blank_unused(path: Path, kinds: Iterable[str]) -> None:
    for file in path.glob("*.lock"):
        with suppress(OSError), _locked(file) as free:  # housekeeping must not stop its caller
            if free:
                _blank(path, int(file.stem), kinds)


def _try_lock(file: Path) -> int | None:
    """Lock a file until this process ends; return its descriptor, or None where it is locked. Raises OSError."""
    lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


@contextmanager
def _locked(file: Path) -> Iterator[bool]:
    lock = _try_lock(file)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            os.close(lock)


def _preallocate(file: Path, size: int) -> None:
    """Fill the file with zeros up to `size`.

    After truncate or fallocate alone, a later write may still find the disk full.
    """
    with file.open("r+b" if file.exists() else "w+b", buffering=0) as raw:
        if os.fstat(raw.fileno()).st_size >= size:
            return
        try:
            written = 0
            while written < size:
                written += raw.write(bytes(size - written)) or 0
        except OSError:
            file.unlink()  # a partial file would waste disk space
            raise


def _blank(path: Path, slot: int, kinds: Iterable[str]) -> None:
    """Mark files as unused, in place."""
    for kind in kinds:
        file = path / f"{kind}_{slot}.db"
        if file.exists():
            with file.open("r+b", buffering=0) as raw:
                raw.write(bytes(8))  # the header: bytes in use
