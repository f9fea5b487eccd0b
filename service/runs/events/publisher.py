"""From the threads that drive runs to the live streams in Redis, then to the clients that listen in this process.

What comes within a `WINDOW` is one entry of its run, and all runs of the process share one round trip to Redis.
What is urgent is brought there by the thread that tells it. Whoever brings it there writes it to the client too.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import redis
from redis.exceptions import ResponseError

from service.errors import DatabaseUnavailable
from service.infra.redis import RedisStore
from service.infra.redis_client import exchange
from service.runs.events.event_stream import LIFE, encode, stream_key
from service.runs.events.outbox import Listener, Outbox
from service.types import RunEvent

log = logging.getLogger("slipway.live")

WINDOW = 0.05  # seconds for which what is not urgent is gathered
MAX_ENTRIES = 4_000  # of one run's stream; older ones are read from the database
LOOK = 1.0  # seconds between looks at every client, for those that are slow and those that hear nothing
OWNED = 1.0  # seconds that the database's word holds, while Redis is away, for whose the run is
ASK_AGAIN = 0.5  # seconds between questions to a database that is away too
REFUSED = "equal or smaller"  # what Redis says of an entry's id that is not greater than the last

Batch = tuple[Outbox, list[RunEvent], bool]  # what a run has told since, and whether that is all
# Note in the database that these runs and attempts tell what their live streams do not hold; answers those that no
# later attempt took over. Raises `DatabaseUnavailable`.
NoteGaps = Callable[[Sequence[tuple[str, int]]], Collection[tuple[str, int]]]


class Publisher:
    """Moves events from those who tell them to Redis, then to their clients: by one thread per process, or at once.

    `heartbeat`: seconds after which a client that was told nothing is given a sign of life.
    """

    def __init__(self, redis_store: RedisStore, heartbeat: float, note_gaps: NoteGaps) -> None:
        self._redis_store = redis_store
        self._heartbeat = heartbeat
        self._note_gaps = note_gaps
        self._ask_at = 0.0  # time.monotonic(); not before it, of a database that is away
        self._lock = threading.Lock()
        self._dirty: dict[Outbox, None] = {}
        self._listened: set[Outbox] = set()
        self._work = threading.Event()  # something is there
        self._urgent = threading.Event()  # and some of it is not to wait for the end of the window
        self._thread: threading.Thread | None = None

    def open(
        self,
        run_id: str,
        attempt: int,
        listener: Listener | None = None,
        lost: Callable[[], None] = lambda: None,
    ) -> Outbox:
        """`lost` is called when a later attempt has taken the run over."""
        channel = Outbox(run_id, attempt, self.submit, listener, lost)
        with self._lock:
            if listener is not None:
                self._listened.add(channel)
            if self._thread is None:  # lazily: a thread does not survive a fork
                self._thread = threading.Thread(target=self._loop, name="live-publisher", daemon=True)
                self._thread.start()
        return channel

    def submit(
        self, channel: Outbox, events: Sequence[RunEvent], urgent: bool, *, last: bool = False
    ) -> None:
        with self._lock:
            channel.pending.extend(events)
            channel.ending = channel.ending or last
            if not urgent or channel.busy:
                channel.urgent = channel.urgent or urgent
                self._dirty[channel] = None
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
        """Take the pending events of every run, or of those with urgent ones; not of runs that are being published."""
        with self._lock:
            self._urgent.clear()
            return self._chosen([one for one in self._dirty if (everything or one.urgent) and not one.busy])

    def _chosen(self, channels: Sequence[Outbox]) -> list[Batch]:
        """Under the lock."""
        batch = [(channel, channel.pending, channel.ending) for channel in channels]
        for channel in channels:
            self._dirty.pop(channel, None)
            channel.pending, channel.urgent, channel.busy = [], False, True
        if not self._dirty:
            self._work.clear()
        return batch

    def _bring(self, batch: list[Batch]) -> None:
        """To the live streams, then to the clients; what neither Redis nor the database takes waits.

        What Redis alone does not take is held for those who follow from elsewhere, until it takes what comes next: an
        entry of its own would have the id of the one whose answer was lost.
        """
        filled = [(channel, events) for channel, events, _ in batch if events and not channel.fenced]
        try:
            apart = held = self._publish(filled)
        except Exception:  # it would end the publisher's thread, which carries every stream, or a run
            log.exception("live_publish_failed")
            apart, held = {channel for channel, _ in filled}, set()
        waits = self._wait_for_note(apart) if apart else ()
        for channel, events, ends in batch:
            if channel in waits:
                self._put_back(channel, events)
                continue
            if channel in held:
                channel.hold(events)
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

    def _put_back(self, channel: Outbox, events: list[RunEvent]) -> None:
        """Tried again with the next window."""
        with self._lock:
            channel.pending[:0] = events
            channel.busy = False
            self._dirty[channel] = None
            self._work.set()

    def _publish(self, filled: Sequence[tuple[Outbox, list[RunEvent]]]) -> set[Outbox]:
        """Write entries; the channels of those that Redis has not taken, as far as it said."""
        if not filled:
            return set()
        encoded = [
            (channel, f"{channel.attempt}-{events[-1].seq}", events, encode(events))
            for channel, events in filled
        ]
        now = time.monotonic()
        old = [channel for channel, _ in filled if now - channel.renewed > LIFE / 4]
        server = ""

        def commands(connection: Any) -> list[tuple[Any, ...]]:
            nonlocal server
            server = self._redis_store.server_of(connection)
            return [
                ("XADD", stream_key(channel.run_id), "MAXLEN", "~", MAX_ENTRIES, entry_id, "e")
                + (encode([*channel.untaken, *events]) if channel.untaken else entry,)
                + (() if channel.server == server else ("s", server))
                for channel, entry_id, events, entry in encoded
            ] + [("EXPIRE", stream_key(channel.run_id), LIFE) for channel in old]

        def write(client: redis.Redis) -> list[Any]:
            answers = exchange(client, commands)
            for answer in answers:
                if isinstance(answer, ResponseError) and REFUSED not in str(answer):
                    raise answer
            return answers

        answers = self._redis_store.call(write, default=None)
        if answers is None:
            return {channel for channel, _ in filled}
        for (channel, _), answer in zip(filled, answers, strict=False):
            if isinstance(answer, ResponseError):
                channel.fence()
            channel.server, channel.untaken = server, []
        for channel in old:
            channel.renewed = now
        return set()

    def _wait_for_note(self, channels: Collection[Outbox]) -> Collection[Outbox]:
        """Have it noted that clients are told more than the live streams hold; the channels that have to wait for it.

        Where nobody listens here, nobody is told.
        """
        now = time.monotonic()
        asked = [one for one in channels if one.listened and now - one.owned_at > OWNED]
        if not asked or now < self._ask_at:
            return asked
        try:
            owned = self._note_gaps([(channel.run_id, channel.attempt) for channel in asked])
        except Exception as error:
            if not isinstance(error, DatabaseUnavailable):
                log.exception("live_gap_not_recorded")
            self._ask_at = time.monotonic() + ASK_AGAIN
            return asked
        for channel in asked:
            if (channel.run_id, channel.attempt) in owned:
                channel.owned_at = now
            else:
                channel.fence()
        return ()
