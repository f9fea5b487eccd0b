"""Stream-reader thread: reads the model's answers for many streams of a process at once.

Delivering each delta by itself wakes the run's thread, the publisher's and the client's; with hundreds of streams that
saturates the process. So beyond `FEW_STREAMS`, this thread periodically reads the data that has arrived on every
stream, while the runs' threads sleep until their answers end.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Protocol

import httpx2

from service.llm.client import ModelCall

FEW_STREAMS = 8  # up to this many open streams, each run's thread reads its own
PAUSE_OF_EACH = 0.001  # seconds between two rounds, per open stream beyond `FEW_STREAMS` …
MIN_PAUSE, LONG_PAUSE = 0.02, 0.1  # … clamped to these, in seconds
# In a busy process a round takes long; the pause is then at least this many times its duration …
PAUSE_OF_WORK = 8
STEADY = 3  # … the minimum of this many rounds: a single one may include a 20 ms wait for a core
MAX_PAUSE = 0.2  # … at most this many seconds


class Readable(Protocol):
    """Source of a streamed answer that is read without blocking."""

    def arrived(self) -> bytes:
        """Read available data without blocking; may be empty."""

    @property
    def complete(self) -> bool:
        """Return whether the answer has arrived completely."""


class StreamSink:
    """Stream read on behalf of its run. `take` receives each chunk; True, or an exception, ends the stream."""

    def __init__(
        self, source: Readable, call: ModelCall, silence: float, take: Callable[[bytes], bool]
    ) -> None:
        self.call = call
        self._source = source
        self._silence = silence
        self._take = take
        self._arrived_at = time.monotonic()
        self._over = threading.Lock()
        self._over.acquire()
        self.error: Exception | None = None

    def look(self) -> bool:
        """Read once without blocking; return True when the stream has ended, normally or not."""
        try:
            data = self._source.arrived()
            now = time.monotonic()
            if data:
                self._arrived_at = now
                if self._take(data):
                    return True
            if now > min(self._arrived_at + self._silence, self.call.deadline) and not self._source.complete:
                raise httpx2.ReadTimeout("The model was silent for too long")
            return self._source.complete
        except Exception as error:
            self.error = error
            return True

    def end(self) -> None:
        with suppress(RuntimeError):  # ended already
            self._over.release()

    def wait(self, seconds: float) -> bool:
        return self._over.acquire(timeout=seconds)


class StreamReader:
    """Reader of all streams of a process, created after the fork. Its thread starts lazily, idle without streams."""

    def __init__(self) -> None:
        self._change = threading.Lock()
        self._all: set[StreamSink] = set()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self, stream: StreamSink) -> None:
        """Block until the stream ends. Raises the error that ended it; at the call's deadline `httpx2.ReadTimeout`."""
        with self._change:
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._loop, name="stream-reader", daemon=True)
                self._thread.start()
            self._all.add(stream)
            self._some.set()
        if not stream.wait(stream.call.remaining() + 2 * MAX_PAUSE + 1):
            with self._change:
                self._all.discard(stream)
            raise httpx2.ReadTimeout("Nobody reads what the model sends")
        if stream.error is not None:
            raise stream.error

    def _loop(self) -> None:
        took = deque([0.0], maxlen=STEADY)
        while True:
            self._some.wait()
            time.sleep(pause_of(len(self._all), took))
            with self._change:
                streams = list(self._all)
            began = time.monotonic()
            over = [stream for stream in streams if stream.look()]
            took.append(time.monotonic() - began)
            with self._change:
                self._all.difference_update(over)
                if not self._all:
                    self._some.clear()
            for stream in over:
                stream.end()


def pause_of(streams: int, took: Collection[float]) -> float:
    """Compute the seconds until the next read from the number of open streams and the durations of recent reads."""
    pause = min(max((streams - FEW_STREAMS) * PAUSE_OF_EACH, MIN_PAUSE), LONG_PAUSE)
    return min(max(pause, min(took) * PAUSE_OF_WORK), MAX_PAUSE)
