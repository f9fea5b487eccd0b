"""Publisher of run events: from the threads that execute runs to live streams in Redis, then to clients here.

Events within a `WINDOW` become one entry of their run's stream, and all runs of the process share one round trip to
Redis. Urgent events are published by the thread that produces them. The publishing thread also writes events to the
client.
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

WINDOW = 0.05  # seconds for which non-urgent events are collected
MAX_ENTRIES = 4_000  # of one run's stream; older events are read from the database
LOOK = 1.0  # seconds between visits to every client, for backlogs and heartbeats
OWNED = 1.0  # seconds for which a confirmed ownership is trusted while Redis is unavailable
ASK_AGAIN = 0.5  # seconds between queries while the database is unavailable too
REFUSED = "equal or smaller"  # Redis's error for an entry whose id is not greater than the last

Batch = tuple[Outbox, list[RunEvent], bool]  # new events of a run, and whether they are the last
# Record in the database that these (run, attempt) pairs publish events which their live streams lack; returns those not
# taken over by a later attempt. Raises `DatabaseUnavailable`.
NoteGaps = Callable[[Sequence[tuple[str, int]]], Collection[tuple[str, int]]]


class Publisher:
    """Publishes events to Redis, then to clients: by one thread per process, or at once by the calling thread.

    `heartbeat`: seconds without an event after which a client gets a heartbeat.
    """

    def __init__(self, redis_store: RedisStore, heartbeat: float, note_gaps: NoteGaps) -> None:
        self._redis_store = redis_store
        self._heartbeat = heartbeat
        self._note_gaps = note_gaps
        self._ask_at = 0.0  # time.monotonic(); no query before it while the database is unavailable
        self._lock = threading.Lock()
        self._dirty: dict[Outbox, None] = {}
        self._with_client: set[Outbox] = set()
        self._work = threading.Event()  # some outbox has events
        self._urgent = threading.Event()  # and some are not to wait for the end of the window
        self._thread: threading.Thread | None = None

    def open(
        self,
        run_id: str,
        attempt: int,
        listener: Listener | None = None,
        lost: Callable[[], None] = lambda: None,
    ) -> Outbox:
        """Open the outbox of an attempt; `lost` is called when a later attempt has taken over the run."""
        outbox = Outbox(run_id, attempt, self.submit, listener, lost)
        with self._lock:
            if listener is not None:
                self._with_client.add(outbox)
            if self._thread is None or not self._thread.is_alive():  # lazily: no thread survives a fork
                self._thread = threading.Thread(target=self._loop, name="live-publisher", daemon=True)
                self._thread.start()
        return outbox

    def submit(self, outbox: Outbox, events: Sequence[RunEvent], urgent: bool, *, last: bool = False) -> None:
        with self._lock:
            outbox.pending.extend(events)
            outbox.ending = outbox.ending or last
            if not urgent or outbox.busy:
                outbox.urgent = outbox.urgent or urgent
                self._dirty[outbox] = None
                if urgent:
                    self._urgent.set()
                if not self._work.is_set():
                    self._work.set()
                return
            batch = self._batch_of([outbox])
        self._deliver(batch)

    def _loop(self) -> None:
        window_ends = look_at = 0.0
        pause = min(LOOK, self._heartbeat / 4)
        while True:
            woken = self._work.wait(pause)
            now = time.monotonic()
            if now >= look_at:
                look_at = now + pause
                self._look()
            if not woken:
                continue
            if now >= window_ends:
                window_ends = now + WINDOW
            self._urgent.wait(window_ends - now)
            self._deliver(self._take(everything=time.monotonic() >= window_ends))

    def _look(self) -> None:
        with self._lock:
            outboxes = list(self._with_client)
        for outbox in outboxes:
            outbox.look(self._heartbeat)

    def _take(self, *, everything: bool) -> list[Batch]:
        """Take the pending events of every run, or only of urgent ones; not of runs being published."""
        with self._lock:
            self._urgent.clear()
            return self._batch_of([one for one in self._dirty if (everything or one.urgent) and not one.busy])

    def _batch_of(self, outboxes: Sequence[Outbox]) -> list[Batch]:
        """Take the pending events of these outboxes. Call with the lock held."""
        batch = [(outbox, outbox.pending, outbox.ending) for outbox in outboxes]
        for outbox in outboxes:
            self._dirty.pop(outbox, None)
            outbox.pending, outbox.urgent, outbox.busy = [], False, True
        if not self._dirty:
            self._work.clear()
        return batch

    def _deliver(self, batch: list[Batch]) -> None:
        """Publish to the live streams, then to clients; events that neither Redis nor the database takes wait.

        Events refused by Redis alone are held for followers elsewhere until it accepts the next ones: an entry of their
        own would repeat the id of the one whose acknowledgement was lost.
        """
        filled = [(outbox, events) for outbox, events, _ in batch if events and not outbox.fenced]
        try:
            failed = held = self._publish(filled)
        except Exception:  # it would end the thread that serves every stream, or a run
            log.exception("live_publish_failed")
            failed, held = {outbox for outbox, _ in filled}, set()
        waits = self._wait_for_note(failed) if failed else ()
        for outbox, events, ends in batch:
            if outbox in waits:
                self._put_back(outbox, events)
                continue
            if outbox in held:
                outbox.hold(events)
            if events:
                outbox.deliver(events)
            with self._lock:
                outbox.busy = False
                if outbox.urgent:  # more arrived in the meantime
                    self._urgent.set()
                if ends:
                    self._with_client.discard(outbox)
            if ends:
                outbox.closed()

    def _put_back(self, outbox: Outbox, events: list[RunEvent]) -> None:
        """Return events to the outbox, to be retried in the next window."""
        with self._lock:
            outbox.pending[:0] = events
            outbox.busy = False
            self._dirty[outbox] = None
            self._work.set()

    def _publish(self, filled: Sequence[tuple[Outbox, list[RunEvent]]]) -> set[Outbox]:
        """Write entries; return outboxes whose entries Redis has not taken, as far as known."""
        if not filled:
            return set()
        encoded = [
            (outbox, f"{outbox.attempt}-{events[-1].seq}", events, encode(events))
            for outbox, events in filled
        ]
        now = time.monotonic()
        old = [outbox for outbox, _ in filled if now - outbox.renewed > LIFE / 4]
        server = ""

        def commands(connection: Any) -> list[tuple[Any, ...]]:
            nonlocal server
            server = self._redis_store.server_of(connection)
            return [
                ("XADD", stream_key(outbox.run_id), "MAXLEN", "~", MAX_ENTRIES, entry_id, "e")
                + (encode([*outbox.unsent, *events]) if outbox.unsent else entry,)
                + (() if outbox.server == server else ("s", server))
                for outbox, entry_id, events, entry in encoded
            ] + [("EXPIRE", stream_key(outbox.run_id), LIFE) for outbox in old]

        def write(client: redis.Redis) -> list[Any]:
            answers = exchange(client, commands)
            for answer in answers:
                if isinstance(answer, ResponseError) and REFUSED not in str(answer):
                    raise answer
            return answers

        answers = self._redis_store.call(write, default=None)
        if answers is None:
            return {outbox for outbox, _ in filled}
        for (outbox, _), answer in zip(filled, answers, strict=False):
            if isinstance(answer, ResponseError):
                outbox.fence()
            outbox.server, outbox.unsent = server, []
        for outbox in old:
            outbox.renewed = now
        return set()

    def _wait_for_note(self, outboxes: Collection[Outbox]) -> Collection[Outbox]:
        """Record that clients get events missing in the live streams; return outboxes that must wait for the record.

        No record is needed for a run without a client here.
        """
        now = time.monotonic()
        pending = [one for one in outboxes if one.has_client and now - one.owned_at > OWNED]
        if not pending or now < self._ask_at:
            return pending
        try:
            owned = self._note_gaps([(outbox.run_id, outbox.attempt) for outbox in pending])
        except Exception as error:
            if not isinstance(error, DatabaseUnavailable):
                log.exception("live_gap_not_recorded")
            self._ask_at = time.monotonic() + ASK_AGAIN
            return pending
        for outbox in pending:
            if (outbox.run_id, outbox.attempt) in owned:
                outbox.owned_at = now
            else:
                outbox.fence()
        return ()
