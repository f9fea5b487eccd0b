"""The way of a run's events to the one who listens here, over a real Redis."""

from __future__ import annotations

import pytest

from service.cache import SpeedStore
from service.runs import live
from service.runs.live import Channel, ChannelOverflow, LiveReader, Publisher
from service.types import Event, RunEvent, new_id
from tests.conftest import RedisServer, wait_until


@pytest.fixture
def speed(redis_server: RedisServer) -> SpeedStore:
    return SpeedStore(redis_server.url, max_connections=4)


@pytest.fixture
def channel(speed: SpeedStore) -> Channel:
    return Publisher(speed).open(new_id("run"))


def delta(number: int) -> RunEvent:
    return RunEvent(Event.TEXT_DELTA, {"text": str(number)}, number)


def read(channel: Channel) -> list[int]:
    """Numbers of all events until the channel is done."""
    found: list[int] = []
    while not channel.done:
        found += [event.seq for event in channel.get(5.0)]
    return found


def test_all_arrive_in_order_and_none_after_the_end(channel: Channel, speed: SpeedStore) -> None:
    for number in range(1, 501):
        channel.put([delta(number)])
    channel.close()
    assert read(channel) == list(range(1, 501))
    assert channel.get(5.0) == []
    told = LiveReader(speed, speed.client).told(channel.run_id, 0)
    assert told is not None and [event.seq for event in told] == list(range(1, 501))


def test_many_channels_of_one_publisher_keep_apart(speed: SpeedStore) -> None:
    publisher = Publisher(speed)
    channels = [publisher.open(new_id("run")) for _ in range(20)]
    for number in range(1, 51):
        for channel in channels:
            channel.put([delta(number)])
    for channel in channels:
        channel.close()
    assert all(read(channel) == list(range(1, 51)) for channel in channels)


def test_what_is_not_urgent_waits_for_its_window(speed: SpeedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first event, the first word and the last do not wait, and take nobody else's along."""
    monkeypatch.setattr(live, "WINDOW", 600.0)
    publisher = Publisher(speed)
    slow, quick = publisher.open(new_id("run")), publisher.open(new_id("run"))
    slow.put([delta(1)])
    assert [event.seq for event in slow.get(5.0)] == [1]
    slow.put([delta(2)])
    quick.put([delta(1)])
    assert [event.seq for event in quick.get(5.0)] == [1]
    assert slow.get(0.05) == []
    slow.put([RunEvent(Event.RUN_COMPLETED, {}, 3)])
    assert [event.seq for event in slow.get(5.0)] == [2, 3]


def test_a_reader_that_is_too_slow_is_told(channel: Channel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_UNREAD", 10)
    for number in range(1, 30):
        channel.put([delta(number)])
    channel.close()
    wait_until(lambda: channel._overflow, "the overflow", timeout=5)
    with pytest.raises(ChannelOverflow):
        channel.get(5.0)


def test_what_kept_a_run_from_beginning_reaches_its_reader(channel: Channel) -> None:
    channel.fail(ZeroDivisionError())
    channel.close()
    with pytest.raises(ZeroDivisionError):
        channel.get(5.0)


def test_a_stream_has_its_life_from_the_first_entry_on(channel: Channel, speed: SpeedStore) -> None:
    for number in range(1, 4):
        channel.put([delta(number)])
        assert channel.get(5.0)
    assert live.LIFE * 3 / 4 < speed.client.ttl(live.stream_key(channel.run_id)) <= live.LIFE
