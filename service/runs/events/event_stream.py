"""Live event stream of a run in Redis: for followers on other workers, and for a worker that resumes the run.

A client gets no event that the live stream lacks: when a worker dies, the one that resumes its run reads there what
clients have seen, and continues from there. While Redis is unavailable, the database records that there are more
events, so that the events in Redis are not taken for complete (see `service.runs.events.recovered`).

An entry's id is `<attempt>-<number of its last event>`. Redis only accepts increasing ids, so once a later attempt has
written, entries of the one before it are refused: a worker that has lost its run stops before its client gets another
event.
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

LIFE = 3_600  # seconds a run's stream is kept after its last entry (up to a quarter less)

# KEYS: stream. ARGV: the attempt that resumes the run, and the stream's time to live in seconds. Entries of earlier
# attempts are refused after this. Returns the id of the server process, and all entries.
_TAKE_UP = Script("""
local info = redis.pcall('INFO', 'server')
local server = type(info) == 'string' and string.match(info, 'run_id:(%x+)') or ''
redis.pcall('XADD', KEYS[1], ARGV[1] .. '-0', 's', server)
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {server, redis.call('XRANGE', KEYS[1], '-', '+')}
""")


def stream_key(run_id: str) -> str:
    return f"slipway:stream:{run_id}"  # not `live`, which earlier releases used with another id format


def encode(events: Sequence[RunEvent]) -> bytes:
    return orjson.dumps([[event.seq, event.name, event.data] for event in events])


def decode(fields: dict[bytes, bytes]) -> list[RunEvent]:
    """Decode an entry's events; the entry with which an attempt takes over has none."""
    return [event_of(item) for item in orjson.loads(fields.get(b"e", b"[]"))]


def event_of(item: Sequence[Any]) -> RunEvent:
    """Decode `[seq, name, data]`, the form of an event in Redis and in step rows."""
    return RunEvent(Event(item[1]), item[2], item[0])


def attempt_of(entry_id: bytes) -> int:
    return int(entry_id.partition(b"-")[0])


class StreamEntry(NamedTuple):
    """Entry of a live stream. `server`: the process that accepted it; None: the same as for the entry before."""

    attempt: int
    events: list[RunEvent]
    server: str | None


class EventStream(NamedTuple):
    """Live stream as found by a later attempt, and the server process it was read from (empty: unknown)."""

    entries: list[StreamEntry]
    server: str


class EventStreamReader:
    """Reader of live streams, over separate connections because its reads block."""

    def __init__(self, redis_store: RedisStore, blocking: redis.Redis) -> None:
        self._redis_store = redis_store
        self._blocking = blocking

    def available(self) -> bool:
        return self._redis_store.available()

    def take_up(self, run_id: str, attempt: int) -> EventStream | None:
        """Read all entries of earlier attempts, and refuse new ones from them. None: Redis is unavailable.

        Raises `LeaseLost` when a later attempt has resumed the run already.
        """
        key = stream_key(run_id)
        found: Any = self._redis_store.call(
            lambda client: _TAKE_UP(client, [key], attempt, LIFE), default=None
        )
        if found is None:
            return None
        server, listed = found
        entries = [_entry(entry_id, fields) for entry_id, fields in listed]
        if any(entry.attempt > attempt for entry in entries):
            raise LeaseLost
        return EventStream([entry for entry in entries if entry.attempt < attempt], server.decode())

    def read_all(self, run_id: str) -> list[tuple[bytes, list[RunEvent]]]:
        """Read every entry of the stream, with its id."""
        entries: Any = self._redis_store.call(lambda client: client.xrange(stream_key(run_id)), default=())
        return [(entry, decode(fields)) for entry, fields in entries]

    def read(self, run_id: str, position: bytes, wait: float) -> list[tuple[bytes, list[RunEvent]]]:
        """Read entries after `position`, waiting at most `wait` seconds. Raises `redis.RedisError` without Redis."""
        entries = read_stream(self._blocking, stream_key(run_id), position, 200, wait)
        return [(entry, decode(fields)) for entry, fields in entries]


def _entry(entry_id: bytes, listed: Sequence[bytes]) -> StreamEntry:
    fields = dict(zip(listed[::2], listed[1::2], strict=True))
    server = fields.get(b"s")
    return StreamEntry(attempt_of(entry_id), decode(fields), None if server is None else server.decode())
