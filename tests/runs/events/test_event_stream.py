"""Event stream of a run: order, urgency, gaps and fencing, over a real Redis."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from service.errors import DatabaseUnavailable
from service.ids import new_id
from service.infra.redis import RedisStore
from service.runs.events import event_stream
from service.runs.events import outbox as channel_module
from service.runs.events import publisher as publisher_module
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.outbox import Listener, Outbox
from service.runs.events.publisher import Publisher
from service.runs.slots import LeaseLost
from service.types import Event, RunEvent
from tests.conftest import RedisServer, redis_in, wait_until
from tests.runs.events.channels import Client, delta, opened, publisher_of, redis_store, taken, told_in

__all__ = ["redis_store"]


def test_all_arrive_in_order_and_all_is_there_at_the_end(redis_store: RedisStore) -> None:
    channel = opened(publisher_of(redis_store, 15.0))
    for number in range(1, 501):
        channel.put([delta(number)])
    channel.close()
    assert taken(channel) == list(range(1, 501))
    assert (taken(channel), channel.seen) == ([], 500)
    told = told_in(EventStreamReader(redis_store, redis_store.client), channel.run_id)
    assert told == list(range(1, 501))


def test_many_channels_of_one_publisher_keep_apart(redis_store: RedisStore) -> None:
    publisher = publisher_of(redis_store, 15.0)
    channels = [opened(publisher) for _ in range(20)]
    for number in range(1, 51):
        for channel in channels:
            channel.put([delta(number)])
    for channel in channels:
        channel.close()
    assert all(taken(channel) == list(range(1, 51)) for channel in channels)
    assert not publisher._with_client


def test_ordinary_events_wait_for_the_window(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first event, the first word and the last do not wait, and take nobody else's along."""
    monkeypatch.setattr(publisher_module, "WINDOW", 600.0)
    publisher = publisher_of(redis_store, 15.0)
    slow, quick = opened(publisher), opened(publisher)
    slow.put([delta(1)])
    assert taken(slow) == [1]
    slow.put([delta(2)])
    quick.put([delta(1)])
    assert (taken(quick), taken(slow)) == ([1], [])
    slow.put([RunEvent(Event.RUN_COMPLETED, {}, 3)])
    assert taken(slow) == [2, 3]


def test_urgent_events_are_published_by_the_calling_thread(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Publisher, "_loop", lambda self: None)
    channel = opened(publisher_of(redis_store, 15.0))
    channel.put([RunEvent(Event.RUN_STARTED, {}, 1)])
    assert taken(channel) == [1]
    channel.put([RunEvent(Event.STEP_STARTED, {}, 2)])
    assert taken(channel) == []
    channel.put([delta(3)])
    assert taken(channel) == [2, 3]
    channel.put([RunEvent(Event.RUN_COMPLETED, {}, 4)])
    channel.close()
    assert (taken(channel), channel.over) == ([4], True)


def test_urgent_or_not_all_keep_their_order(redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the client and in the live stream, whoever brings them there."""
    monkeypatch.setattr(publisher_module, "WINDOW", 0.001)
    chance, publish = random.Random(7), Publisher._publish

    def dawdle(self: Publisher, batch: Any) -> Any:
        time.sleep(chance.random() / 500)
        return publish(self, batch)

    monkeypatch.setattr(Publisher, "_publish", dawdle)
    publisher = publisher_of(redis_store, 15.0)
    clients = [Client() for _ in range(8)]
    channels = [opened(publisher, client) for client in clients]
    names = [
        [chance.choice((Event.TEXT_DELTA, Event.APPROVAL_REQUIRED)) for _ in range(100)] for _ in channels
    ]

    def tell(channel: Outbox, names: list[Event]) -> None:
        for number, name in enumerate(names, 1):
            channel.put([RunEvent(name, {"text": "x"}, number)])
            time.sleep(chance.random() / 500)
        channel.close()

    threads = [threading.Thread(target=tell, args=pair) for pair in zip(channels, names, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for channel, client in zip(channels, clients, strict=True):
        told = told_in(EventStreamReader(redis_store, redis_store.client), channel.run_id)
        assert told == list(range(1, 101))
        assert client.taken == list(range(1, 101))


def test_a_stream_has_its_life_from_the_first_entry_on(redis_store: RedisStore) -> None:
    channel = opened(publisher_of(redis_store, 15.0))
    for number in range(1, 4):
        channel.put([delta(number)])
    channel.close()
    assert (
        event_stream.LIFE * 3 / 4
        < redis_store.client.ttl(event_stream.stream_key(channel.run_id))
        <= event_stream.LIFE
    )


class Notes:
    """A database that is asked to note what no live stream holds: here, away, or of a later attempt's run."""

    def __init__(self) -> None:
        self.away = self.later = False
        self.noted: list[tuple[str, int]] = []

    def __call__(self, told: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
        if self.away:
            raise DatabaseUnavailable
        self.noted += told
        return set() if self.later else set(told)


class Bound:
    """A run told by attempt 1, with a client here."""

    def __init__(self, redis_store: RedisStore) -> None:
        self.client, self.notes, self.lost = Client(), Notes(), 0
        self.reader = EventStreamReader(redis_store, redis_store.client)
        publisher = Publisher(redis_store, 15.0, self.notes)
        self.channel = publisher.open(new_id("run"), 1, Listener(self.client), self._lose)

    def _lose(self) -> None:
        self.lost += 1


@pytest.fixture
def own(scratch: Path) -> Iterator[RedisServer]:
    """A Redis that a test may stop."""
    with redis_in(scratch / "live") as server:
        yield server


@pytest.fixture
def own_store(own: RedisServer) -> Iterator[RedisStore]:
    with closing(RedisStore(own.url, max_connections=4)) as store:
        yield store


def test_a_later_attempt_silences_the_one_before(redis_store: RedisStore) -> None:
    bound = Bound(redis_store)
    channel, run_id = bound.channel, bound.channel.run_id
    channel.put([delta(1)])
    stream = bound.reader.take_up(run_id, 2)
    assert stream is not None and stream.server == redis_store.server
    assert [(entry.attempt, entry.server) for entry in stream.entries] == [(1, redis_store.server)]
    channel.put([RunEvent(Event.RUN_COMPLETED, {}, 2)])
    assert (bound.client.taken, bound.lost, channel.over) == ([1], 1, False)
    channel.close()
    assert (taken(channel), channel.seen, bound.notes.noted) == ([], 1, [])
    assert told_in(bound.reader, run_id) == [1]
    with pytest.raises(LeaseLost):  # the same for who takes it up late
        bound.reader.take_up(run_id, 1)


def test_without_redis_the_gap_is_stored_before_the_client_is_written_to(
    own: RedisServer, own_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher_module, "OWNED", 600.0)
    bound = Bound(own_store)
    own.kill()
    bound.notes.away = True
    bound.channel.put([delta(1)])
    time.sleep(0.2)
    assert bound.client.taken == []  # neither of them knows of it yet
    bound.notes.away = False
    wait_until(lambda: bound.client.taken == [1], "the note")
    assert bound.notes.noted == [(bound.channel.run_id, 1)]
    bound.channel.put([RunEvent(Event.APPROVAL_REQUIRED, {}, 2)])
    assert (bound.client.taken, len(bound.notes.noted)) == ([1, 2], 1)  # that holds for a while
    monkeypatch.setattr(publisher_module, "OWNED", 0.0)
    bound.notes.later = True
    bound.channel.put([RunEvent(Event.RUN_COMPLETED, {}, 3)])
    assert (bound.client.taken, bound.lost, bound.channel.over) == ([1, 2], 1, False)
    bound.channel.close()


def test_run_without_a_client_stores_no_gap(own: RedisServer, own_store: RedisStore) -> None:
    notes = Notes()
    own.kill()
    publisher = Publisher(own_store, 15.0, notes)
    channel = publisher.open(new_id("run"), 2)
    channel.put([delta(1)])
    channel.close()
    assert notes.noted == []


@pytest.mark.parametrize(("most", "told"), [(20_000, [1, 2, 3, 4]), (1, [3, 4])])
def test_events_redis_refused_are_sent_with_the_next(
    own: RedisServer, own_store: RedisStore, monkeypatch: pytest.MonkeyPatch, most: int, told: list[int]
) -> None:
    """Whether a client listens here or not, so that those who follow from elsewhere miss nothing."""
    monkeypatch.setattr(channel_module, "MAX_UNSENT", most, raising=False)
    bound = Bound(own_store)
    unheard = publisher_of(own_store, 15.0).open(new_id("run"), 2)
    own.kill()
    for channel in (bound.channel, unheard):
        for number in (1, 2, 3):
            channel.put([RunEvent(Event.APPROVAL_REQUIRED, {}, number)])
    own.start()
    wait_until(lambda: own_store.call(lambda client: client.ping(), default=False), "Redis")
    for channel in (bound.channel, unheard):
        channel.put([RunEvent(Event.APPROVAL_REQUIRED, {}, 4)])
        channel.close()
        assert told_in(bound.reader, channel.run_id) == told
    assert bound.client.taken == [1, 2, 3, 4]


def test_unencodable_event_is_dropped(redis_store: RedisStore) -> None:
    """Drop the event: retries would block the live streams of every run in the process."""
    channel = opened(publisher_of(redis_store, 15.0))
    channel.put([RunEvent(Event.APPROVAL_REQUIRED, {"reason": "\ud800"}, 1)])
    channel.put([RunEvent(Event.APPROVAL_REQUIRED, {}, 2)])
    channel.close()
    assert told_in(EventStreamReader(redis_store, redis_store.client), channel.run_id) == [2]
