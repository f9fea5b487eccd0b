"""Fair write lock for SQLite, which has one writer: a queue across the threads of all processes.

SQLite's busy handler sleeps for up to 100 ms between attempts. Where another process writes all the time, it never
meets the gap between two transactions, and fails after its time-out. So writers queue before they begin: threads of a
process first in, first out, and one thread of each process at two locked files. The holder of `-next` is next in line,
the holder of `-writer` writes. A process keeps the lock while its threads queue, for `TURN` seconds at most.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import DatabaseUnavailable

TURN = 0.02  # seconds
POLL_SECONDS = 0.001  # between two attempts to lock a file; one thread of a process polls at a time


class Writers:
    """Write lock of one process, made after fork. `patience`: seconds that a thread waits for it."""

    def __init__(self, database: Path, patience: float) -> None:
        self._patience = patience
        self._paths = [database.with_name(f"{database.name}-{name}") for name in ("next", "writer")]
        self._files: list[int] = []  # descriptors of `_paths`, opened with the first turn
        self._change = threading.Lock()
        self._busy = False
        self._queue: deque[threading.Lock] = deque()  # of each waiting thread, released when its turn comes
        self._turn_ends = 0.0  # time.monotonic(); 0: this process does not have the lock

    @contextmanager
    def turn(self, *, priority: bool = False) -> Iterator[None]:
        """Hold the lock for a block. `priority`: before all others of this process.

        Raises `DatabaseUnavailable` on time-out.
        """
        deadline = time.monotonic() + self._patience
        self._wait_in_process(priority)
        try:
            self._lock_files(deadline)
            yield
        finally:
            self._release()

    def _wait_in_process(self, priority: bool) -> None:
        with self._change:
            if not self._busy:
                self._busy = True
                return
            woken = threading.Lock()
            woken.acquire()
            (self._queue.appendleft if priority else self._queue.append)(woken)
        if woken.acquire(timeout=self._patience):
            return
        with self._change:
            if woken in self._queue:  # if not, the lock was handed over at the last moment
                self._queue.remove(woken)
                raise DatabaseUnavailable("The database is busy.")

    def _release(self) -> None:
        """Hand the lock to the first in the queue; unlock the files when the queue is empty or the turn is over."""
        with self._change:
            woken = self._queue.popleft() if self._queue else None
            if self._turn_ends and (woken is None or time.monotonic() > self._turn_ends):
                self._turn_ends = 0.0
                for file in self._files[1:]:  # none: closed meanwhile, which unlocked them
                    fcntl.flock(file, fcntl.LOCK_UN)
            self._busy = woken is not None
        if woken is not None:
            woken.release()

    def close(self) -> None:
        files, self._files = self._files, []  # atomic: another thread may be about to lock them
        for file in files:
            os.close(file)

    def _lock_files(self, deadline: float) -> None:
        if self._turn_ends:
            return
        self._files = files = self._files or _open(self._paths)
        next_file, writer_file = files
        _lock(next_file, deadline)
        try:
            _lock(writer_file, deadline)
        finally:
            fcntl.flock(next_file, fcntl.LOCK_UN)
        self._turn_ends = time.monotonic() + TURN


def _open(paths: list[Path]) -> list[int]:
    try:
        return [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for path in paths]
    except OSError as error:
        raise DatabaseUnavailable("The folder of the database cannot be used.") from error


def _lock(file: int, deadline: float) -> None:
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise DatabaseUnavailable("The database is busy.") from None
        time.sleep(POLL_SECONDS)
