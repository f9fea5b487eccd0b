"""Clients of a live stream: written to, slow, disconnected, and what is stored of events Redis does not take."""

from __future__ import annotations

import time

import pytest

from service.ids import new_id
from service.infra.redis import RedisStore
from service.runs.events import outbox as channel_module
from service.runs.events import publisher as publisher_module
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.outbox import Listener
from service.types import Event, RunEvent
from tests.conftest import wait_until
from tests.exhausted import no_threads
from tests.runs.events.channels import Client, delta, opened, publisher_of, redis_store, taken, told_in

__all__ = ["redis_store"]


def test_a_client_that_is_too_slow_gets_the_rest_from_elsewhere(
    redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel_module, "MAX_UNREAD", 10)
    client = Client(room=1)
    channel = opened(publisher_of(redis_store, 15.0), client)
    channel.put([delta(1)])
    channel.put([delta(2)])
    wait_until(lambda: channel.seen == 2, "the window")
    for number in range(3, 30):
        channel.put([delta(number)])
    channel.close()
    assert (client.taken, channel.seen, channel.over, taken(channel)) == ([1], 2, False, [])


def test_publishing_thread_writes_to_the_client(redis_store: RedisStore) -> None:
    client = Client()
    channel = opened(publisher_of(redis_store, 15.0), client)
    channel.put([delta(1)])
    assert client.taken == [1]  # urgent: by this thread
    channel.put([delta(2)])
    wait_until(lambda: client.taken == [1, 2], "the publisher")
    channel.put([RunEvent(Event.RUN_COMPLETED, {}, 3)])
    assert (client.taken, channel.seen, channel.over) == ([1, 2, 3], 3, True)
    channel.close()
    assert taken(channel) == []


def test_a_client_is_written_to_from_when_its_response_is_under_way(redis_store: RedisStore) -> None:
    listener, client = Listener(), Client()
    channel = publisher_of(redis_store, 15.0).open(new_id("run"), 1, listener)
    channel.put([RunEvent(Event.RUN_STARTED, {}, 1)])
    assert not channel.written
    assert taken(channel) == [1]
    listener.writer = client
    assert channel.written
    channel.put([delta(2)])
    assert client.taken == [2]


def test_events_not_taken_are_offered_again(redis_store: RedisStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the next look, or with what follows; what is left at the end is the run's thread's."""
    monkeypatch.setattr(publisher_module, "LOOK", 0.02)
    client = Client(room=0)
    channel = opened(publisher_of(redis_store, 15.0), client)
    channel.put([delta(1)])
    channel.put([delta(2)])
    assert client.taken == []
    client.room = 2
    wait_until(lambda: client.taken == [1, 2], "a look")
    channel.put([delta(3)])
    wait_until(lambda: channel.seen == 3, "the window")
    channel.put([RunEvent(Event.APPROVAL_REQUIRED, {}, 4), RunEvent(Event.RUN_COMPLETED, {}, 5)])
    channel.close()
    assert (client.taken, taken(channel), channel.over) == ([1, 2], [4, 5], True)


def test_disconnected_client_is_reported_once_and_not_written_to(redis_store: RedisStore) -> None:
    gone: list[bool] = []
    client = Client()
    channel = publisher_of(redis_store, 15.0).open(
        new_id("run"), 1, Listener(client, lambda: gone.append(True))
    )
    channel.put([delta(1)])
    client.error = BrokenPipeError()
    channel.put([RunEvent(Event.APPROVAL_REQUIRED, {}, 2)])
    channel.put([RunEvent(Event.RUN_COMPLETED, {}, 3)])
    channel.close()
    assert (client.taken, gone, channel.over, taken(channel)) == ([1], [True], True, [])
    told = told_in(EventStreamReader(redis_store, redis_store.client), channel.run_id)
    assert told == [1, 2, 3]


def test_fault_of_one_clients_lens_loses_that_client_alone(
    redis_store: RedisStore, caplog: pytest.LogCaptureFixture
) -> None:
    gone: list[bool] = []
    faulty, sound = Client(), Client()
    faulty.error = ValueError("a lens with a fault")
    publisher = publisher_of(redis_store, 15.0)
    other = opened(publisher, sound)
    other.put([delta(1)])
    channel = publisher.open(new_id("run"), 1, Listener(faulty, lambda: gone.append(True)))
    channel.put([delta(1)])  # urgent: by this thread
    assert gone == [True] and "client_write_failed" in caplog.text
    second = publisher.open(new_id("run"), 1, Listener(None, lambda: gone.append(True)))
    second.put([delta(1)])
    assert second._listener is not None
    second._listener.writer = faulty
    second.put([delta(2)])
    wait_until(lambda: len(gone) == 2, "the window")
    other.put([delta(2)])
    wait_until(lambda: sound.taken == [1, 2], "the publisher")
    for one in (channel, second, other):
        one.close()


def test_publisher_whose_thread_could_not_start_starts_it_later(
    redis_store: RedisStore,
) -> None:
    publisher = publisher_of(redis_store, 15.0)
    with no_threads(), pytest.raises(RuntimeError):
        opened(publisher)
    client = Client()
    channel = opened(publisher, client)
    channel.put([delta(1)])
    channel.put([delta(2)])
    wait_until(lambda: client.taken == [1, 2], "the publisher")
    channel.close()


def test_idle_client_gets_heartbeats(redis_store: RedisStore) -> None:
    client = Client()
    channel = opened(publisher_of(redis_store, heartbeat=0.1), client)
    channel.put([delta(1)])
    wait_until(lambda: client.beats >= 2, "two signs")
    channel.close()
    before = client.beats
    time.sleep(0.3)
    assert (client.beats, client.taken, channel.seen) == (before, [1], 1)


def test_run_without_a_client_buffers_no_events(redis_store: RedisStore) -> None:
    channel = publisher_of(redis_store, 15.0).open(new_id("run"), 1)
    channel.put([delta(1)])
    channel.close()
    assert taken(channel) == []
