"""The live stream of a run: Redis Streams for those who follow from elsewhere, a channel for the one here.

A client is told nothing that the live stream does not hold (while Redis is up): when a worker dies, the one
that takes its run up knows exactly what clients have seen, and goes on after it. Entries of a run are at
least `WINDOW` apart, and all runs of the process share one round trip to Redis.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import orjson
import redis

from service.cache import SpeedStore
from service.types import Event, RunEvent

log = logging.getLogger("slipway.live")

WINDOW = 0.05  # seconds between two entries of one run
MAX_ENTRIES = 4_000  # of one run's stream; older ones are read from the database
MAX_UNREAD = 20_000  # events a channel holds for a slow reader before it is told to read elsewhere
LIFE = 3_600  # seconds a run's stream is kept after its last entry


def stream_key(run_id: str) -> str:
    return f"slipway:live:{run_id}"


class ChannelOverflow(Exception):
    """The reader was too slow: it must follow the run from the store, after the last event it got."""


class Channel:
    """One run's events on their way out of the thread that drives it."""

    def __init__(self, run_id: str, publisher: Publisher) -> None:
        self.run_id = run_id
        self.flushed = 0.0  # time.monotonic() of the last entry
        self.urgent = True  # the first entry does not wait
        self.pending: list[RunEvent] = []
        self._publisher = publisher
        self._spoke = False
        self._ready = threading.Condition()
        self._out: deque[RunEvent] = deque()
        self._overflow = False
        self._failure: BaseException | None = None
        self._closed = False

    def put(self, events: Sequence[RunEvent]) -> None:
        """By the run's thread. The first word and the last event go out at once, the rest in windows."""
        urgent = False
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
        with self._ready:
            if not self._out and not self._closed:
                self._ready.wait(timeout)
            if self._overflow:
                raise ChannelOverflow
            if self._failure is not None:
                raise self._failure
            events = list(self._out)
            self._out.clear()
            return events

    @property
    def done(self) -> bool:
        return self._closed and not self._out

    def deliver(self, events: Sequence[RunEvent]) -> None:
        """By the publisher: these are in the live stream now."""
        with self._ready:
            if len(self._out) + len(events) > MAX_UNREAD:
                self._overflow = True
                self._out.clear()
            if not self._overflow:
                self._out.extend(events)
            self._ready.notify()

    def fail(self, error: BaseException) -> None:
        with self._ready:
            self._failure = error
            self._ready.notify()

    def close(self) -> None:
        """By the run's thread, when it lets go of the run; what is pending still goes out first."""
        self._publisher.submit(self, (), True, last=True)

    def closed(self) -> None:
        with self._ready:
            self._closed = True
            self._ready.notify()


class Publisher:
    """One thread per process that moves events from run threads to Redis, then to their channels."""

    def __init__(self, speed: SpeedStore) -> None:
        self._speed = speed
        self._wake = threading.Condition()
        self._dirty: dict[str, Channel] = {}
        self._closing: set[str] = set()
        self._thread: threading.Thread | None = None

    def open(self, run_id: str) -> Channel:
        with self._wake:
            if self._thread is None:  # lazily: a thread does not survive a fork
                self._thread = threading.Thread(target=self._loop, name="live-publisher", daemon=True)
                self._thread.start()
        return Channel(run_id, self)

    def submit(
        self, channel: Channel, events: Sequence[RunEvent], urgent: bool, *, last: bool = False
    ) -> None:
        with self._wake:
            channel.pending.extend(events)
            channel.urgent = channel.urgent or urgent
            if last:
                self._closing.add(channel.run_id)
            self._dirty[channel.run_id] = channel
            self._wake.notify()

    def _loop(self) -> None:
        while True:
            batch, closing = self._take()
            try:
                self._publish(batch)
            except Exception:  # the thread carries every stream of the process: it must not end
                log.exception("live_publish_failed")
            for channel, events in batch:
                if events:
                    channel.deliver(events)
            for channel in closing:
                channel.closed()

    def _take(self) -> tuple[list[tuple[Channel, list[RunEvent]]], list[Channel]]:
        """Wait until some run's window is open; its events, and the channels that end with them."""
        with self._wake:
            while True:
                now = time.monotonic()
                due = [c for c in self._dirty.values() if c.urgent or now - c.flushed >= WINDOW]
                if due:
                    break
                soonest = min((c.flushed + WINDOW - now for c in self._dirty.values()), default=None)
                self._wake.wait(soonest)
            batch, closing = [], []
            for channel in due:
                del self._dirty[channel.run_id]
                batch.append((channel, channel.pending))
                channel.pending, channel.urgent, channel.flushed = [], False, now
                if channel.run_id in self._closing:
                    self._closing.discard(channel.run_id)
                    closing.append(channel)
            return batch, closing

    def _publish(self, batch: list[tuple[Channel, list[RunEvent]]]) -> None:
        filled = [(stream_key(channel.run_id), events) for channel, events in batch if events]
        if not filled:
            return

        def write(client: redis.Redis) -> bool:
            with client.pipeline(transaction=False) as pipe:
                for key, events in filled:
                    pipe.xadd(key, {"e": encode(events)}, maxlen=MAX_ENTRIES, approximate=True)
                    pipe.expire(key, LIFE)
                pipe.execute()
            return True

        self._speed.call(write, default=False)


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
        found: Any = self._blocking.xread(
            {stream_key(run_id): position}, count=200, block=int(wait * 1000) or 1
        )
        return [(entry, decode(fields[b"e"])) for _, entries in found or () for entry, fields in entries]
