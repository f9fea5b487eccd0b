"""Whose turn it is to write to SQLite, which has one writer: fair between the threads of all processes.

SQLite itself lets a process that finds the database locked sleep for up to 100 ms and try again. Where another process
writes all the time, the moment between two of its transactions is never met, and whoever waits is refused after
seconds. So writers queue before they ask SQLite: threads in the order they came, and of each process one at a time at
two locked files. Who holds the first is next; who holds the second writes. A process keeps its turn while others of
its threads wait, for `TURN` at most; and a thread whose turn it is may do along what they wait to do.
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
LOOK = 0.001  # seconds between two looks at a locked file; one thread of a process looks at a time


class Waiting:
    """A thread that waits for its turn."""

    __slots__ = ("_gone_on", "done")
    along = False  # whether another thread may do what it waits to do

    def __init__(self) -> None:
        self.done = False  # by another thread: its turn is not needed any more
        self._gone_on = threading.Lock()
        self._gone_on.acquire()

    def wait(self, seconds: float) -> bool:
        """False: for nothing."""
        return self._gone_on.acquire(timeout=seconds)

    def go_on(self) -> None:
        self._gone_on.release()


class Writers:
    """One per process, made after the fork. `patience`: seconds that a thread waits for its turn."""

    def __init__(self, database: Path, patience: float) -> None:
        self._patience = patience
        self._paths = [database.with_name(f"{database.name}-{name}") for name in ("next", "writer")]
        self._files: list[int] = []  # of those, opened with the first turn
        self._change = threading.Lock()
        self._busy = False
        self._queue: deque[Waiting] = deque()
        self._turn_ends = 0.0  # time.monotonic(); 0: it is not ours

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Whose it is may write, in here. Raises `DatabaseUnavailable` when it does not come in time."""
        self.take(Waiting())
        try:
            yield
        finally:
            self.give()

    def take(self, mine: Waiting, *, ahead: bool = False) -> bool:
        """True: it is the thread's turn, until it gives it. False: another thread has done what it waited to do.

        `ahead`: before all others of this process. Raises `DatabaseUnavailable` when neither comes in time.
        """
        end = time.monotonic() + self._patience
        if not self._take(mine, ahead):
            return False
        try:
            self._begin(end)
        except BaseException:
            self.give()
            raise
        return True

    def _take(self, mine: Waiting, ahead: bool) -> bool:
        with self._change:
            if not self._busy:
                self._busy = True
                return True
            (self._queue.appendleft if ahead else self._queue.append)(mine)
        if mine.wait(self._patience):
            return not mine.done
        with self._change:
            if given_up := mine in self._queue:
                self._queue.remove(mine)
        # Else it was given the turn at the last moment, or is being done along.
        if given_up or not mine.wait(self._patience):
            raise DatabaseUnavailable("The database is busy.")
        return not mine.done

    def along(self) -> Iterator[Waiting]:
        """Those that wait and can be done along, while this turn lasts: each has to be told to go on."""
        while time.monotonic() < self._turn_ends:
            with self._change:
                if not (self._queue and self._queue[0].along):
                    return
                following = self._queue.popleft()
            yield following

    def give(self) -> None:
        """To the thread that waits longest; the turn of this process too, unless it goes on."""
        with self._change:
            following = self._queue.popleft() if self._queue else None
            if self._turn_ends and (following is None or time.monotonic() > self._turn_ends):
                self._turn_ends = 0.0
                for file in self._files[1:]:  # none: closed meanwhile, which gave it up
                    fcntl.flock(file, fcntl.LOCK_UN)
            self._busy = following is not None
        if following is not None:
            following.go_on()

    def close(self) -> None:
        files, self._files = self._files, []  # at once: another thread may be about to begin its turn
        for file in files:
            os.close(file)

    def _begin(self, end: float) -> None:
        if self._turn_ends:
            return
        self._files = files = self._files or _opened(self._paths)
        to_be_next, to_write = files
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
