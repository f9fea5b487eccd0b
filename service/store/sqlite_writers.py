"""Fair write lock for SQLite, which has one writer: a queue across the threads of all processes.

SQLite's busy handler sleeps for up to 100 ms between attempts. Where another process writes all the time, it never
meets the gap between two transactions, and fails after its time-out. So writers queue before they begin: threads of a
process first in, first out, and one thread of each process at two locked files. The holder of `-next` is next in line,
the holder of `-writer` writes. A process keeps the lock while its threads queue, for `TURN` seconds at most; the thread
that has it may run the queued writes of the others (group commit).
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


class Waiter:
    """Queued thread. `groupable`: another thread may run its write."""

    __slots__ = ("_woken", "done")
    groupable = False

    def __init__(self) -> None:
        self.done = False  # run by another thread: the lock is not needed any more
        self._woken = threading.Lock()
        self._woken.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait for `wake`. False: timed out."""
        return self._woken.acquire(timeout=seconds)

    def wake(self) -> None:
        self._woken.release()


class Writers:
    """Write lock of one process, made after fork. `patience`: seconds that a thread waits for it."""

    def __init__(self, database: Path, patience: float) -> None:
        self._patience = patience
        self._paths = [database.with_name(f"{database.name}-{name}") for name in ("next", "writer")]
        self._files: list[int] = []  # descriptors of `_paths`, opened with the first turn
        self._change = threading.Lock()
        self._busy = False
        self._queue: deque[Waiter] = deque()
        self._turn_ends = 0.0  # time.monotonic(); 0: this process does not have the lock

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Hold the lock for a block. Raises `DatabaseUnavailable` on time-out."""
        self.acquire(Waiter())
        try:
            yield
        finally:
            self.release()

    def acquire(self, waiter: Waiter, *, priority: bool = False) -> bool:
        """Wait for the lock. True: acquired, `release` it. False: another thread has run the waiter's write.

        `priority`: before all others of this process. Raises `DatabaseUnavailable` on time-out.
        """
        deadline = time.monotonic() + self._patience
        if not self._acquire_in_process(waiter, priority):
            return False
        try:
            self._lock_files(deadline)
        except BaseException:
            self.release()
            raise
        return True

    def _acquire_in_process(self, waiter: Waiter, priority: bool) -> bool:
        with self._change:
            if not self._busy:
                self._busy = True
                return True
            (self._queue.appendleft if priority else self._queue.append)(waiter)
        if waiter.wait(self._patience):
            return not waiter.done
        with self._change:
            if timed_out := waiter in self._queue:
                self._queue.remove(waiter)
        # Not in the queue any more: it was given the lock at the last moment, or its write is being run.
        if timed_out or not waiter.wait(self._patience):
            raise DatabaseUnavailable("The database is busy.")
        return not waiter.done

    def groupable(self) -> Iterator[Waiter]:
        """Dequeue writes that the holder may run, while its turn lasts; the caller wakes each of them."""
        while time.monotonic() < self._turn_ends:
            with self._change:
                if not (self._queue and self._queue[0].groupable):
                    return
                waiter = self._queue.popleft()
            yield waiter

    def release(self) -> None:
        """Hand the lock to the first in the queue; unlock the files when the queue is empty or the turn is over."""
        with self._change:
            waiter = self._queue.popleft() if self._queue else None
            if self._turn_ends and (waiter is None or time.monotonic() > self._turn_ends):
                self._turn_ends = 0.0
                for file in self._files[1:]:  # none: closed meanwhile, which unlocked them
                    fcntl.flock(file, fcntl.LOCK_UN)
            self._busy = waiter is not None
        if waiter is not None:
            waiter.wake()

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
