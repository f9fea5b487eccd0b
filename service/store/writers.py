"""Whose turn it is to write to SQLite, which has one writer: fair between the threads of all processes.

SQLite itself lets a process that finds the database locked sleep for up to 100 ms and try again. Where another process
writes all the time, the moment between two of its transactions is never met, and whoever waits is refused after
seconds. So writers queue before they ask SQLite: threads at a lock in memory, and of each process one at a time at two
locked files. Who holds the first is next; who holds the second writes. A process keeps its turn while others of its
threads wait, for `TURN` at most.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import DatabaseUnavailable

TURN = 0.02  # seconds
LOOK = 0.001  # seconds between two looks at a locked file; one thread of a process looks at a time


class Writers:
    """One per process, made after the fork. `patience`: seconds that a thread waits for its turn."""

    def __init__(self, database: Path, patience: float) -> None:
        self._lock = threading.Lock()
        self._counting = threading.Lock()
        self._waiting = 0
        self._patience = patience
        self._paths = [database.with_name(f"{database.name}-{name}") for name in ("next", "writer")]
        self._files: list[int] = []  # of those, opened with the first turn
        self._turn_ends = 0.0  # time.monotonic(); 0: it is not ours

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Raises `DatabaseUnavailable` when it does not come in time."""
        end = time.monotonic() + self._patience
        self._take()
        try:
            self._begin(end)
            yield
        finally:
            self._give()

    def _take(self) -> None:
        with self._counting:
            self._waiting += 1
        taken = self._lock.acquire(timeout=self._patience)
        with self._counting:
            self._waiting -= 1
        if taken:
            return
        if self._lock.acquire(blocking=False):  # perhaps the turn was kept for this thread alone
            self._give()
        raise DatabaseUnavailable("The database is busy.")

    def _give(self) -> None:
        """The turn, unless it is kept for the next thread; and the lock."""
        try:
            if self._turn_ends and not (self._waiting and time.monotonic() < self._turn_ends):
                self._turn_ends = 0.0
                for file in self._files[1:]:  # none: closed meanwhile, which gave it up
                    fcntl.flock(file, fcntl.LOCK_UN)
        finally:
            self._lock.release()

    def close(self) -> None:
        while self._files:
            os.close(self._files.pop())

    def _begin(self, end: float) -> None:
        if self._turn_ends:
            return
        if not self._files:
            self._files = _opened(self._paths)
        to_be_next, to_write = self._files
        _await(to_be_next, end)
        try:
            _await(to_write, end)
        finally:
            fcntl.flock(to_be_next, fcntl.LOCK_UN)
        self._turn_ends = time.monotonic() + TURN


def _opened(paths: list[Path]) -> list[int]:
    try:
        return [os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) for path in paths]
    except OSError as error:
        raise DatabaseUnavailable("The folder of the database cannot be used.") from error


def _await(file: int, end: float) -> None:
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise DatabaseUnavailable("The database is busy.") from None
        time.sleep(LOOK)
