"""The live stream of a run: Redis Streams for those who follow from elsewhere, a `Channel` to the client here.

A client is told nothing that the live stream does not hold (while Redis is up): when a worker dies, the one
that takes its run up knows exactly what clients have seen, and goes on after it. What comes within a `WINDOW`
is one entry of its run, and all runs of the process share one round trip to Redis. What is urgent is brought there by
the thread that tells it. Whoever brings it there writes it to the client too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

import orjson
import redis

from service.cache import SpeedStore
from service.redis_client import send_all
from service.runs.channel import Channel, Listener
from service.types import Event, RunEvent

log = logging.getLogger("slipway.live")

WINDOW = 0.05  # seconds for which what is not urgent is gathered
MAX_ENTRIES = 4_000  # of one run's stream; older ones are read from the database
LOOK = 1.0  # seconds between looks at every client, for those that are slow and those that hear nothing
LIFE = 3_600  # seconds a run's stream is kept after its last entry, or a quarter less


def stream_key(run_id: str) -> str:
    return f"slipway:live:{run_id}"


Batch = tuple[Channel, list[RunEvent], bool]  # what a run has told since, and whether that is all


class Publisher:
    """Moves events from those who tell them to Redis, then to their clients: by one thread per process, or at once.

    `heartbeat`: seconds after which a client that was told nothing is given a sign of life.
    """

    def __init__(self, speed: SpeedStore, heartbeat: float) -> None:
        self._speed = speed
        self._heartbeat = heartbeat
        self._lock = threading.Lock()
        self._dirty: dict[str, Channel] = {}
        self._listened: set[Channel] = set()
        self._work = threading.Event()  # something is there
        self._urgent = threading.Event()  # and some of it is not to wait for the end of the window
        self._thread: threading.Thread | None = None

    def open(self, run_id: str, listener: Listener | None = None) -> Channel:
        channel = Channel(run_id, self.submit, listener)
        with self._lock:
            if listener is not None:
                self._listened.add(channel)
            if self._thread is None:  # lazily: a thread does not survive a fork
                self._thread = threading.Thread(target=self._loop, name="live-publisher", daemon=True)
                self._thread.start()
        return channel

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
        window_ends = look_at = 0.0
        pause = min(LOOK, self._heartbeat / 4)
        while True:
            some = self._work.wait(pause)
            now = time.monotonic()
            if now >= look_at:
                look_at = now + pause
                self._look()
            if not some:
                continue
            if now >= window_ends:
                window_ends = now + WINDOW
            self._urgent.wait(window_ends - now)
            self._bring(self._take(everything=time.monotonic() >= window_ends))

    def _look(self) -> None:
        with self._lock:
            listened = list(self._listened)
        for channel in listened:
            channel.look(self._heartbeat)

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
            with self._lock:
                channel.busy = False
                if channel.urgent:  # told in the meantime
                    self._urgent.set()
                if ends:
                    self._listened.discard(channel)
            if ends:
                channel.closed()

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
        found: Any = self._blocking.xread(
            {stream_key(run_id): position}, count=200, block=int(wait * 1000) or 1
        )
        return [(entry, decode(fields[b"e"])) for _, entries in found or () for entry, fields in entries]
