"""Channels of a publisher over a real Redis, and a client that takes their events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import pytest

from service.ids import new_id
from service.infra.redis import RedisStore
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.outbox import Listener, Outbox
from service.runs.events.publisher import Publisher
from service.types import Event, RunEvent
from tests.conftest import RedisServer


@pytest.fixture
def redis_store(redis_server: RedisServer) -> Iterator[RedisStore]:
    with closing(RedisStore(redis_server.url, max_connections=4)) as store:
        yield store


class Client:
    """A `Writer` that takes so many pieces of what it is written, then holds one back until it has room again."""

    def __init__(self, room: int = 1_000_000) -> None:
        self.room = room
        self.taken: list[int] = []
        self.beats = 0
        self.error: Exception | None = None
        self._rest: list[int] = []

    def write(self, events: Sequence[RunEvent]) -> None:
        assert not self._rest, "written to in the middle of something else"
        self.beats += not events
        self._rest = [event.seq for event in events]
        self.rest()

    def rest(self) -> bool:
        if self.error is not None:
            raise self.error
        while self._rest and self.room > 0:
            self.room -= 1
            self.taken.append(self._rest.pop(0))
        return bool(self._rest)


def delta(number: int) -> RunEvent:
    return RunEvent(Event.TEXT_DELTA, {"text": str(number)}, number)


def publisher_of(redis_store: RedisStore, heartbeat: float) -> Publisher:
    """Over a database in which no other attempt is known."""
    return Publisher(redis_store, heartbeat, set)


def opened(publisher: Publisher, client: Client | None = None) -> Outbox:
    return publisher.open(new_id("run"), 1, Listener(client))


def told_in(reader: EventStreamReader, run_id: str) -> list[int]:
    return [event.seq for _, events in reader.read_all(run_id) for event in events]


def taken(channel: Outbox) -> list[int]:
    return [event.seq for event in channel.take()]
