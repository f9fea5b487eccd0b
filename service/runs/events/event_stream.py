"""Live event stream of a run in Redis: for followers on other workers, and for the worker that takes the run up.

A client gets no event that the live stream does not hold: when a worker dies, the one that takes its run up knows
what clients have seen, and goes on after it. While Redis is away the database notes that there are more events, so
that nobody takes those in Redis for the whole (see `service.runs.events.recovered`).

An entry's id is `<attempt>-<number of its last event>`. Redis takes none that is not greater than the last, so once
a later attempt has written, the one before it is refused: so a worker that has lost its run stops before its client
gets another event.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson
import redis

from service.infra.redis import RedisStore
from service.infra.redis_client import Script, read_stream
from service.runs.slots import LeaseLost
from service.types import Event, RunEvent

LIFE = 3_600  # seconds a run's stream is kept after its last entry, or a quarter less

# KEYS: stream. ARGV: the attempt that takes the run up, and the stream's life. Entries of earlier attempts are refused
# after this. Returns the server process, and all entries.
_TAKE_UP = Script("""
local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
redis.pcall('XADD', KEYS[1], ARGV[1] .. '-0', 's', server)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {server, redis.call('XRANGE', KEYS[1], '-', '+')}
""")


def stream_key(run_id: str) -> str:
    return f"slipway:stream:{run_id}"  # not `live`: releases whose entries had other ids wrote there


def encode(events: Sequence[RunEvent]) -> bytes:
    return orjson.dumps([[event.seq, event.name, event.data] for event in events])


def decode(fields: dict[bytes, bytes]) -> list[RunEvent]:
    """Decode an entry's events; the entry with which an attempt takes over has none."""
    return [event_of(item) for item in orjson.loads(fields.get(b"e", b"[]"))]


def event_of(item: Sequence[Any]) -> RunEvent:
    """Decode `[seq, name, data]`, as Redis and the step rows keep an event."""
    return RunEvent(Event(item[1]), item[2], item[0])


def attempt_of(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


class StreamEntry(NamedTuple):
    """Entry of a live stream. `server`: the process that took it; None: the same as took the one before."""

    attempt: int
    events: list[RunEvent]
    server: str | None


class EventStream(NamedTuple):
    """Live stream as a later attempt found it, and the server process it was found at (empty: not known)."""

    entries: list[StreamEntry]
    server: str


class EventStreamReader:
    """Reads live streams. It has connections of its own, because its reads block."""

    def __init__(self, redis_store: RedisStore, blocking: redis.Redis) -> None:
        self._redis_store = redis_store
        self._blocking = blocking

    def available(self) -> bool:
        return self._redis_store.available()

    def take_up(self, run_id: str, attempt: int) -> EventStream | None:
        """Read all entries of earlier attempts; from now on theirs are refused. None: Redis is away.

        Raises `LeaseLost` when a later attempt has taken the run up already.
        """
        key = stream_key(run_id)
        said: Any = self._redis_store.call(
            lambda client: _TAKE_UP(client, [key], attempt, LIFE), default=None
        )
        if said is None:
            return None
        server, found = said
        entries = [_entry(entry_id, fields) for entry_id, fields in found]
        if any(entry.attempt > attempt for entry in entries):
            raise LeaseLost
        return EventStream([entry for entry in entries if entry.attempt < attempt], server.decode())

    def told(self, run_id: str) -> list[tuple[bytes, list[RunEvent]]]:
        """Read every entry that the stream holds, with its id."""
        entries: Any = self._redis_store.call(lambda client: client.xrange(stream_key(run_id)), default=())
        return [(entry, decode(fields)) for entry, fields in entries]

    def read(self, run_id: str, position: bytes, wait: float) -> list[tuple[bytes, list[RunEvent]]]:
        """Read entries after `position`, waiting at most `wait` seconds. Raises `redis.RedisError` when it is away."""
        entries = read_stream(self._blocking, stream_key(run_id), position, 200, wait)
        return [(entry, decode(fields)) for entry, fields in entries]


def _entry(entry_id: bytes, listed: Sequence[bytes]) -> StreamEntry:
    fields = dict(zip(listed[::2], listed[1::2], strict=True))
    server = fields.get(b"s")
    return StreamEntry(attempt_of(entry_id), decode(fields), None if server is None else server.decode())
