"""Stream-reader thread: reads the model's answers for many streams of a process at once.

Each delta by itself would wake the thread of its run, the publisher's, and the client's. With hundreds of streams that
is all a process could do. So while many are open, this thread reads what has arrived for each of them, one after the
other, now and then, and the threads of their runs sleep until their answers have ended.
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

FEW_STREAMS = 8  # up to so many at once, each is read by the thread of its run, piece by piece
PAUSE_OF_EACH = 0.001  # seconds between two looks at all of them, for each open stream beyond those …
SHORTEST_PAUSE, LONG_PAUSE = 0.02, 0.1  # … within these
# A process that has much to do takes long to look: then the pause is so many times what a look took …
PAUSE_OF_WORK = 8
STEADY = 3  # … the shortest of so many: one alone may have waited 20 ms for a core that others use
LONGEST_PAUSE = 0.2  # … up to this


class Readable(Protocol):
    """Answer under way."""

    def arrived(self) -> bytes:
        """Read what has arrived, without blocking; may be empty."""

    @property
    def complete(self) -> bool:
        """True where no more is to arrive."""


class StreamSink:
    """Stream that is read for its run. `take` gets what has arrived: True, or an exception, ends it."""

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
        """Read once, without blocking. True: the stream is over, well or not."""
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
        with suppress(RuntimeError):  # it has ended already
            self._over.release()

    def wait(self, seconds: float) -> bool:
        return self._over.acquire(timeout=seconds)


class StreamReader:
    """Reads streams. One per process, made after the fork; its thread starts with the first, and sleeps without any."""

    def __init__(self) -> None:
        self._change = threading.Lock()
        self._all: set[StreamSink] = set()
        self._some = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self, stream: StreamSink) -> None:
        """Read until the stream is over. Raises what ended it, at its call's deadline `httpx2.ReadTimeout`."""
        with self._change:
            self._all.add(stream)
            self._some.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="stream-reader", daemon=True)
                self._thread.start()
        if not stream.wait(stream.call.remaining() + 2 * LONGEST_PAUSE + 1):
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
    """Return seconds until the next read, by how many streams are open and the seconds that the last few reads took."""
    pause = min(max((streams - FEW_STREAMS) * PAUSE_OF_EACH, SHORTEST_PAUSE), LONG_PAUSE)
    return min(max(pause, min(took) * PAUSE_OF_WORK), LONGEST_PAUSE)
