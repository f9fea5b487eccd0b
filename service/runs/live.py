"""The live stream of a run: Redis Streams for those who follow from elsewhere, a channel for the one here.

A client is told nothing that the live stream does not hold (while Redis is up): when a worker dies, the one
that takes its run up knows exactly what clients have seen, and goes on after it. What comes within a `WINDOW`
is one entry of its run, and all runs of the process share one round trip to Redis. What is urgent is brought there by
the thread that tells it, which wakes nobody but its reader.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import orjson
import redis

from service.cache import SpeedStore, send_all
from service.leading import step_aside
from service.types import Event, RunEvent

log = logging.getLogger("slipway.live")

WINDOW = 0.05  # seconds for which what is not urgent is gathered
MAX_ENTRIES = 4_000  # of one run's stream; older ones are read from the database
MAX_UNREAD = 20_000  # events a channel holds for a slow reader before it is told to read elsewhere
LIFE = 3_600  # seconds a run's stream is kept after its last entry, or a quarter less


def stream_key(run_id: str) -> str:
    return f"slipway:live:{run_id}"


class ChannelOverflow(Exception):
    """The reader was too slow: it must follow the run from the store, after the last event it got."""


class Writer(Protocol):
    """Where the reader of a channel brings what it reads, for the publisher to bring it there itself."""

    def write(self, events: Sequence[RunEvent]) -> bool:
        """Without waiting. False: nothing was taken, and the reader has to do it."""

    @property
    def unfinished(self) -> bool:
        """Some of what was taken is left for the reader to write before anything else."""


class Channel:
    """One run's events on their way out of the thread that drives it. One thread at a time delivers, one reads.

    With hundreds of streams, waking a reader for each piece of text would cost more than all else. So where a reader
    has set `writer`, and waits, having written all that it got, the publisher writes in its place.
    """

    def __init__(self, run_id: str, publisher: Publisher) -> None:
        self.run_id = run_id
        self.pending: list[RunEvent] = []
        self.urgent = self.ending = False
        self.busy = False  # some thread is bringing what was told before
        self.renewed = float(-LIFE)  # time.monotonic(); when the life of its stream was last renewed
        self.writer: Writer | None = None  # set by the reader
        self.written = 0  # the number of the last event that it wrote
        self._publisher = publisher
        self._began = self._spoke = False
        self._out: SimpleQueue[list[RunEvent] | BaseException | None] = SimpleQueue()  # None: the end
        self._given = self._taken = 0  # events
        self._idle = False  # the reader waits, and has written all that it got
        self._writing = threading.Lock()  # held while `_idle` changes, and while the publisher writes
        self._overflow = False
        self._closed = False

    def put(self, events: Sequence[RunEvent]) -> None:
        """By the run's thread. The first event, the first word and the last go out at once, the rest in windows."""
        urgent = not self._began
        self._began = True
        for event in events:
            if event.name is Event.TEXT_DELTA and not self._spoke:
                self._spoke = urgent = True
            elif event.name.is_last or event.name is Event.APPROVAL_REQUIRED:
                urgent = True
        self._publisher.submit(self, events, urgent)

    def get(self, timeout: float) -> list[RunEvent]:
        """What has come since, waiting at most `timeout` seconds; empty when nothing has.

        Raises `ChannelOverflow` when this reader was too slow, and whatever ended the run before it began.
        """
        events: list[RunEvent] = []
        step_aside()
        try:
            with self._writing:
                self._idle = self._out.empty()
            batch = None if self._closed else self._out.get(timeout=timeout)
            while batch is not None and not self._overflow:
                if isinstance(batch, BaseException):
                    raise batch
                events += batch
                batch = self._out.get_nowait()
            self._closed = True
        except Empty:
            pass
        finally:
            with self._writing:
                self._idle = False
        if self._overflow:
            raise ChannelOverflow
        self._taken += len(events)
        return events

    @property
    def done(self) -> bool:
        """All that there was has been read."""
        return self._closed

    def deliver(self, events: list[RunEvent]) -> None:
        """These are in the live stream now."""
        with self._writing:
            if (
                self._idle
                and self.writer is not None
                and not events[-1].name.is_last
                and self.writer.write(events)
            ):
                self.written = events[-1].seq
                if self.writer.unfinished:
                    self._idle = False
                    self._out.put([])
                return
            self._idle = False
        self._given += len(events)
        if self._given - self._taken > MAX_UNREAD:
            self._overflow = True
        self._out.put([] if self._overflow else events)

    def fail(self, error: BaseException) -> None:
        self._out.put(error)

    def close(self) -> None:
        """By the run's thread, when it lets go of the run; what is pending still goes out first."""
        self._publisher.submit(self, (), True, last=True)

    def closed(self) -> None:
        self._out.put(None)


Batch = tuple[Channel, list[RunEvent], bool]  # what a run has told since, and whether that is all


class Publisher:
    """Moves events from those who tell them to Redis, then to their channels: by one thread per process, or at once."""

    def __init__(self, speed: SpeedStore) -> None:
        self._speed = speed
        self._lock = threading.Lock()
        self._dirty: dict[str, Channel] = {}
        self._work = threading.Event()  # something is there
        self._urgent = threading.Event()  # and some of it is not to wait for the end of the window
        self._thread: threading.Thread | None = None

    def open(self, run_id: str) -> Channel:
        with self._lock:
            if self._thread is None:  # lazily: a thread does not survive a fork
                self._thread = threading.Thread(target=self._loop, name="live-publisher", daemon=True)
                self._thread.start()
        return Channel(run_id, self)

    def submit(
        self, channel: Channel, events: Sequence[RunEvent], urgent: bool, *, last: bool = False
    ) -> None:
        with self._lock:
            channel.pending.extend(events)
            channel.ending = channel.ending or last
            if not urgent or channel.busy:
                channel.urgent = channel.urgent or urgent
                self._dirty[channel.run_id] = channel
                if urgent:
                    self._urgent.set()
                if not self._work.is_set():
                    self._work.set()
                return
            batch = self._chosen([channel])
        self._bring(batch)

    def _loop(self) -> None:
        window_ends = 0.0
        while True:
            self._work.wait()
            now = time.monotonic()
            if now >= window_ends:
                window_ends = now + WINDOW
            self._urgent.wait(window_ends - now)
            self._bring(self._take(everything=time.monotonic() >= window_ends))

    def _take(self, *, everything: bool) -> list[Batch]:
        """Of every run, or of those that have something urgent, but for those of which something is on its way."""
        with self._lock:
            self._urgent.clear()
            return self._chosen(
                [one for one in self._dirty.values() if (everything or one.urgent) and not one.busy]
            )

    def _chosen(self, channels: Sequence[Channel]) -> list[Batch]:
        """Under the lock."""
        batch = [(channel, channel.pending, channel.ending) for channel in channels]
        for channel in channels:
            self._dirty.pop(channel.run_id, None)
            channel.pending, channel.urgent, channel.busy = [], False, True
        if not self._dirty:
            self._work.clear()
        return batch

    def _bring(self, batch: list[Batch]) -> None:
        try:
            self._publish(batch)
        except Exception:  # it would end the publisher's thread, which carries every stream, or a run
            log.exception("live_publish_failed")
        for channel, events, ends in batch:
            if events:
                channel.deliver(events)
            if ends:
                channel.closed()
            with self._lock:
                channel.busy = False
                if channel.urgent:  # told in the meantime
                    self._urgent.set()

    def _publish(self, batch: list[Batch]) -> None:
        filled = [(channel, encode(events)) for channel, events, _ in batch if events]
        if not filled:
            return
        now = time.monotonic()
        old = [channel for channel, _ in filled if now - channel.renewed > LIFE / 4]

        commands: list[tuple[Any, ...]] = [
            ("XADD", stream_key(channel.run_id), "MAXLEN", "~", MAX_ENTRIES, "*", "e", entry)
            for channel, entry in filled
        ]
        commands += [("EXPIRE", stream_key(channel.run_id), LIFE) for channel in old]

        def write(client: redis.Redis) -> bool:
            send_all(client, commands)
            return True

        if self._speed.call(write, default=False):
            for channel in old:
                channel.renewed = now


def encode(events: Sequence[RunEvent]) -> bytes:
    return orjson.dumps([[event.seq, event.name, event.data] for event in events])


def decode(data: bytes) -> list[RunEvent]:
    return [event_of(item) for item in orjson.loads(data)]


def event_of(item: Sequence[Any]) -> RunEvent:
    """`[seq, name, data]`, as Redis and the step rows keep an event."""
    return RunEvent(Event(item[1]), item[2], item[0])


class LiveReader:
    """Reads live streams. It has connections of its own, because its reads block."""

    def __init__(self, speed: SpeedStore, blocking: redis.Redis) -> None:
        self._speed = speed
        self._blocking = blocking

    def available(self) -> bool:
        return self._speed.available()

    def told(self, run_id: str, after: int) -> list[RunEvent] | None:
        """Everything the stream holds after `after`; None when Redis cannot say, or has lost the stream."""
        entries: Any = self._speed.call(lambda client: client.xrange(stream_key(run_id)), default=None)
        if not entries:  # a run's first event is in its stream: an empty one was lost
            return None
        return [event for _, fields in entries for event in decode(fields[b"e"]) if event.seq > after]

    def read(self, run_id: str, position: bytes, wait: float) -> list[tuple[bytes, list[RunEvent]]]:
        """Entries after `position`, waiting at most `wait` seconds. Raises `redis.RedisError` when it is away."""
        step_aside()
        found: Any = self._blocking.xread(
            {stream_key(run_id): position}, count=200, block=int(wait * 1000) or 1
        )
        return [(entry, decode(fields[b"e"])) for _, entries in found or () for entry, fields in entries]
