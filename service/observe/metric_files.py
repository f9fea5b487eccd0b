"""Metric files shared by the processes of a machine: web workers in one folder, task workers in the one beside it.

prometheus_client maps one file per kind of metric and process. A mapped file with holes in it ends the process by
SIGBUS when the disk is full. So each file is written whole before it is mapped, and never has to grow (see
`metrics.MOST_LABEL_SETS`). Files go by place, not by pid: a process takes the lowest place that is free and counts on
from what stands there, so there are never more files than processes at once, and a process that takes the place of a
dead one needs no new room.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

MIB = 1 << 20
# Bytes. Sized by `tests/observe/test_metrics.py::test_no_file_has_to_grow`; what is not used costs disk, not memory.
SIZES = {
    "counter": 3 * MIB,
    "histogram": 2 * MIB,
    "gauge_livemax": MIB // 8,
    "gauge_livemin": MIB // 64,
    "gauge_livesum": MIB // 64,
}
FULL = (errno.ENOSPC, errno.EDQUOT)
_held: list[int] = []  # descriptors of the places this process has: they are free once it ends


def of_tasks(web: Path) -> Path:
    """The folder of the task workers whose figures are told by the web server that leaves its own in `web`."""
    return web.with_name(f"{web.name}-tasks")


def join(path: Path) -> None:
    """Have this process, and those it starts, count in `path`. Raises OSError unless all there is against it is a full
    disk: then each process counts by itself.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in FULL:
            raise
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(path)


def clear(path: Path) -> None:
    """Delete all files: nobody who counts here is alive."""
    shutil.rmtree(path, ignore_errors=True)


def take_place(path: Path) -> int:
    """Take the lowest free place of `path` until this process ends, with its files whole. Raises OSError."""
    for place in count():
        lock = _try_lock(path / f"{place}.lock")
        if lock is None:
            continue
        try:
            for kind, size in SIZES.items():
                _make_whole(path / f"{kind}_{place}.db", size)
        except OSError:
            os.close(lock)
            raise
        _blank_gauges(path, place)
        _held.append(lock)
        return place
    raise AssertionError("unreachable")


def forget_the_dead(path: Path) -> None:
    """Blank the gauges of processes that have ended; their counters stay."""
    for file in path.glob("*.lock"):
        with suppress(OSError), _locked(file) as free:  # whoever asks has better to do than to end over this
            if free:
                _blank_gauges(path, int(file.stem))


def _try_lock(file: Path) -> int | None:
    """The descriptor of a lock that lasts as long as this process; None: somebody else has it. Raises OSError."""
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


def _make_whole(file: Path, size: int) -> None:
    """Write zeros: a file that was only made longer, or reserved, may still meet a full disk when it is written to."""
    with file.open("r+b" if file.exists() else "w+b", buffering=0) as raw:
        if os.fstat(raw.fileno()).st_size >= size:
            return
        try:
            written = 0
            while written < size:
                written += raw.write(bytes(size - written)) or 0
        except OSError:
            file.unlink()  # half a file would keep the room that others need
            raise


def _blank_gauges(path: Path, place: int) -> None:
    """Mark them as unused, in place: a file that is deleted would have to find new room."""
    for kind in SIZES:
        file = path / f"{kind}_{place}.db"
        if kind.startswith("gauge_live") and file.exists():
            with file.open("r+b", buffering=0) as raw:
                raw.write(bytes(8))  # the header: how much of the file is in use
